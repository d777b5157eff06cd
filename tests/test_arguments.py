"""The Python API refuses what makes no sense, in words, and its objects can be copied."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    assert "it is a web address; `cascade classify` reads it" in row.error.message


ARRAYS = {
    "float": np.random.default_rng(0).random((9, 8, 3)),
    "float grey": np.random.default_rng(0).random((9, 8), np.float32),
    "float, channels first": np.random.default_rng(0).random((3, 9, 8), np.float32),
    "float, alpha, channels first": np.random.default_rng(0).random((4, 9, 8)),
    "one channel": np.full((9, 8, 1), 7, np.uint8),
    "one channel first": np.full((1, 9, 8), 7, np.uint8),
    "alpha": np.full((9, 8, 4), 7, np.uint8),
    "16 bits": np.full((9, 8, 3), 700, np.uint16),
    "int64": np.full((9, 8, 3), 70),
    "bool": np.eye(9, dtype=np.bool_),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_conversions_that_an_array_is_refused_with_do_work(tiny_bundle: Path, kind: str) -> None:
    classifier = Cascade(tiny_bundle, workers=1)
    with pytest.raises(UsageError) as refused:
        classifier.predict(ARRAYS[kind])
    steps = [re.findall("`([^`]+)`", step) for step in str(refused.value).split("; ")[1:]]
    assert steps, "nothing is advised"
    assert all(steps), "a step without an expression"
    for ways in itertools.product(*steps):
        array: Any = ARRAYS[kind]
        for way in ways:
            array = eval(way, {"array": array, "Image": Image})
        assert classifier.predict(array).status == "ok", ways


@pytest.mark.parametrize(("shape", "dtype"), [((2, 9, 8, 3), np.uint8), ((2, 3, 9, 8), np.float32)])
def test_a_batch_is_sent_to_predict_many(tiny_bundle: Path, shape, dtype) -> None:
    classifier, array = Cascade(tiny_bundle, workers=1), np.zeros(shape, dtype)
    with pytest.raises(UsageError, match="one by one: predict_many\\(array\\)") as refused:
        classifier.predict(array)
    for ways in (re.findall("`([^`]+)`", step) for step in str(refused.value).split("; ")[1:-1]):
        array = eval(ways[0], {"array": array})
    assert [row.status for row in classifier.predict_many(array)] == ["ok", "ok"]


@pytest.mark.parametrize(
    "array", [np.zeros(9), np.zeros((9, 8, 2)), np.array([["a"]]), np.zeros((9, 8, 3), "c8")]
)
def test_what_is_no_photo_gets_no_conversion(tiny_bundle: Path, array) -> None:
    with pytest.raises(UsageError, match=r"this is no photo$"):
        Cascade(tiny_bundle, workers=1).predict(array)


def test_a_torch_tensor_says_the_conversion(tiny_bundle: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    tensor = torch.rand(3, 9, 8)
    with pytest.raises(UsageError, match="a torch tensor is not read") as refused:
        Cascade(tiny_bundle).predict(tensor)
    (way,) = re.findall("`([^`]+)`", str(refused.value))
    array = eval(way, {"tensor": tensor})
    assert (array.shape, array.dtype) == ((9, 8, 3), np.uint8)
    assert Cascade(tiny_bundle).predict(array).status == "ok"


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
