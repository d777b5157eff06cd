"""The Python API refuses what makes no sense, in words, and its objects can be copied."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade import Cascade, UsageError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_pixels": -1}, "max_pixels is -1; it must be at least 1"),
        ({"max_pixels": "many"}, "max_pixels is 'many', a str; it must be a whole number"),
        ({"top_k": 1.5}, "top_k is 1.5, a float; it must be a whole number"),
        ({"top_k": True}, "top_k is True"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"max_error": "0.05"}, "max_error is '0.05', a str; it must be a number from 0 to 1"),
        ({"max_error": float("nan")}, "max_error is nan; it must be a number from 0 to 1"),
        ({"budget": 2}, "budget is 2; it must be a number from 0 to 1"),
        ({"label_set": "0.9"}, "label_set is '0.9'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(tiny_bundle: Path, arguments: dict, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Cascade(tiny_bundle, **arguments)
    assert words in str(refused.value)


@pytest.mark.parametrize("kind", [str, Path, lambda p: p.read_bytes(), lambda p: io.BytesIO(p.read_bytes())])
def test_one_photo_is_not_several(tiny_bundle: Path, photo, kind) -> None:
    with pytest.raises(UsageError, match="takes several photos and got one"):
        Cascade(tiny_bundle).predict_many(kind(photo()))


def test_what_cannot_be_iterated_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="iterable of photos, not int"):
        Cascade(tiny_bundle).predict_many(3)  # type: ignore[arg-type]


def test_a_batch_array_is_several_photos(tiny_bundle: Path) -> None:
    batch = np.full((3, 20, 30, 3), 200, np.uint8)
    assert len(list(Cascade(tiny_bundle).predict_many(batch))) == 3


def test_a_buffer_at_its_end_is_read_from_its_start(tiny_bundle: Path, photo) -> None:
    buffer = io.BytesIO()
    Image.open(photo()).save(buffer, "PNG")
    assert buffer.tell()
    assert Cascade(tiny_bundle).predict(buffer).label == "bedroom"


def test_a_web_address_gets_a_clear_answer(tiny_bundle: Path) -> None:
    row = Cascade(tiny_bundle).predict("https://example.org/photo.jpg")
    assert row.error is not None
    assert "a web address, and nothing is downloaded" in row.error.message


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((9, 8, 3)), "(array * 255)"),
        (np.zeros((9, 8, 1), np.uint8), "array[:, :, 0]"),
        (np.zeros((9, 8, 4), np.uint8), "array[:, :, :3]"),
        (np.zeros((3, 9, 8), np.float32), "array.transpose(1, 2, 0)"),
        (np.zeros((2, 9, 8, 3), np.uint8), "predict_many(batch)"),
        (np.zeros((9, 8, 3), np.uint16), "array >> 8"),
    ],
)
def test_arrays_of_another_kind_say_the_conversion(tiny_bundle: Path, array, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Cascade(tiny_bundle).predict(array)
    assert words in str(refused.value)


def test_a_torch_tensor_says_the_conversion(tiny_bundle: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    with pytest.raises(UsageError, match="a torch tensor is not read") as refused:
        Cascade(tiny_bundle).predict(torch.zeros(3, 9, 8))
    tensor = torch.zeros(3, 9, 8)
    said = str(refused.value).partition("(H, W, 3): ")[2].partition(" for one")[0]
    assert eval(said, {"tensor": tensor}).shape == (9, 8, 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_open_the_bundle_again(tiny_bundle: Path, photo, copied) -> None:
    first = Cascade(tiny_bundle, operating_point="strict", top_k=2, workers=3, max_pixels=10_000)
    second = copied(first)
    assert second.pipeline is not first.pipeline
    assert (second.top_k, second.workers, second.max_pixels) == (2, 3, 10_000)
    assert second.operating_point == first.operating_point
    path = photo()
    assert second.predict(path).to_dict() | {"ms": 0} == first.predict(path).to_dict() | {"ms": 0}


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "cascade", "-V"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cascade ")
