"""What stands beside the graphs: golden files of every kind, EMBEDDING.md, licences and hashes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("skimage", reason="needs scikit-image")

from cascade import Bundle
from cascade.bundle.files import changed_files
from cascade.imaging.decoding import load_image
from cascade.inference.golden_replay import replay
from cascade.training.export.bundle_documents import refresh
from cascade.training.export.golden import golden_photos


@pytest.fixture(scope="module")
def made(two_expert_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shutil.copytree(two_expert_bundle, tmp_path_factory.mktemp("made") / "bundle")
    refresh(home)
    return home


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def _golden(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "golden" / "golden.json").read_text())
    return loaded


def test_the_photos_are_what_they_are_there_to_prove(made: Path) -> None:
    bundle, home = Bundle.load(made), made / "golden"
    entries = {entry["photo"]: entry for entry in _golden(made)["photos"]}
    opened = {name: _opened(home / name) for name in entries}
    assert entries["large.jpg"]["reduction"] == 2
    assert entries["rocket.png"]["reduction"] == 2
    assert [side % 2 for side in entries["rocket.png"]["size"]] != [0, 0]  # blocks at an edge are smaller
    assert entries["coffee.png"]["reduction"] == 1
    assert entries["tall.jpg"]["size"][1] > 2 * entries["tall.jpg"]["size"][0]
    assert opened["exif6.jpg"].getexif()[0x0112] == 6
    assert opened["exif6.jpg"].size == tuple(reversed(entries["exif6.jpg"]["size"]))
    modes = {"grey.png": "L", "alpha.png": "RGBA", "palette.png": "P", "cmyk.jpg": "CMYK"}
    assert {name: opened[name].mode for name in modes} == modes
    assert opened["depth16.png"].mode.startswith("I")
    for name, entry in entries.items():
        image = load_image(home / name, target=bundle.decode_target, reducing_gap=bundle.reducing_gap)
        assert list(image.size) == entry["decoded_size"]
    # Photographs: hardly any two neighbouring pixels of a picture that somebody drew differ.
    pixels = np.asarray(_opened(home / entries["coffee.png"]["prepared"]["general"])).astype(int)
    assert (np.abs(np.diff(pixels, axis=1)).sum(2) > 0).mean() > 0.5


def test_they_are_small_for_the_largest_usual_input() -> None:
    assert sum(len(photo.content) for photo in golden_photos((672, 672))) < 1_000_000


def test_what_is_replayed_is_what_was_packed(made: Path) -> None:
    assert replay(Bundle.load(made)) == ()
    assert changed_files(Bundle.load(made)) == []


@pytest.mark.parametrize("what", ["pixels", "file", "decision"])
def test_a_difference_is_told(made: Path, tmp_path: Path, what: str) -> None:
    home = shutil.copytree(made, tmp_path / "bundle")
    golden = _golden(home)
    entry = max(golden["photos"], key=lambda e: e["decisions"]["never"]["margin"])
    if what == "pixels":
        path = home / "golden" / entry["prepared"]["general"]
        Image.fromarray(255 - np.asarray(_opened(path))).save(path)
    elif what == "file":
        Image.new("RGB", (40, 40), (0, 0, 255)).save(home / "golden" / entry["photo"])
    else:
        entry["decisions"]["never"]["label"] = "menu"
        entry["decisions"]["never"]["margin"] = 1.0
        (home / "golden" / "golden.json").write_text(json.dumps(golden))
    assert any(entry["photo"] in problem for problem in replay(Bundle.load(home)))


def test_damaged_golden_files_are_told(made: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    home = shutil.copytree(made, tmp_path / "bundle")
    (home / "golden" / "golden.json").write_text('{"photos": [{"decisions": {}}]}')
    ran = run_cli("verify", "--bundle", home)
    assert ran.code == 2
    assert "golden" in ran.err


def test_embedding_md_says_what_is_true_of_this_bundle(made: Path) -> None:
    bundle = Bundle.load(made)
    text = (made / "EMBEDDING.md").read_text()
    assert not re.search(r"\$\w", text)  # every placeholder is filled
    width, _ = bundle.decode_target
    assert f"width / f >= {width} * {bundle.reducing_gap:g}" in text
    for stage in bundle.stages:
        assert f"`{stage.file}`" in text
    for name, shape in (("asked", f"(N, {len(bundle.experts)})"), ("image", "(N, 32, 32, 3)")):
        assert re.search(rf"`{name}` \w+ {re.escape(shape)}", text)


def test_the_resize_of_embedding_md_gives_the_golden_pixels(made: Path) -> None:
    """Its pseudocode, as Python, on files that need no reduction: within one grey level of what is packed."""
    spec = Bundle.load(made).general.input
    assert spec is not None
    for entry in _golden(made)["photos"][:1]:
        pixels = np.asarray(load_image(made / "golden" / entry["photo"]))
        assert entry["reduction"] in (1, 2)
        if entry["reduction"] == 2:
            height, width = (n // 2 * 2 for n in pixels.shape[:2])
            blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(int)
            pixels = (blocks.sum((1, 3)) + 2) // 4
        across = _resize_rows(pixels.astype(float), spec.width)
        result = _resize_rows(across.transpose(1, 0, 2), spec.height).transpose(1, 0, 2)
        expected = np.asarray(_opened(made / "golden" / entry["prepared"]["general"]))
        assert np.abs(result - expected).max() <= 1


def _resize_rows(rows: np.ndarray, size: int) -> np.ndarray:
    def kernel(x: float, a: float = -0.5) -> float:
        x = abs(x)
        if x < 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0

    scale = rows.shape[1] / size
    stretch = max(scale, 1)
    reach = 2 * stretch
    out = np.zeros((len(rows), size, 3))
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(0, int(np.floor(centre - reach + 0.5)))
        last = min(rows.shape[1], int(np.floor(centre + reach + 0.5)))
        weights = np.array([kernel((j + first - centre + 0.5) / stretch) for j in range(last - first)])
        weights /= weights.sum()
        out[:, i] = np.clip(np.floor(np.einsum("hjc,j->hc", rows[:, first:last], weights) + 0.5), 0, 255)
    return out


def test_licences_are_stated_for_every_file(made: Path) -> None:
    document = json.loads((made / "licences.spdx.json").read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    named = {entry["fileName"].removeprefix("./") for entry in document["files"]}
    listed = set(json.loads((made / "bundle.json").read_text())["files"])
    assert named == listed - {"licences.spdx.json"}
    contained = [
        r["relatedSpdxElement"] for r in document["relationships"] if r["relationshipType"] == "CONTAINS"
    ]
    assert contained == [entry["SPDXID"] for entry in document["files"]]
    assert {entry["licenseConcluded"] for entry in document["files"]} == {"Apache-2.0", "CC0-1.0"}


def test_the_same_bundle_gives_the_same_files(made: Path, tmp_path: Path) -> None:
    again = shutil.copytree(made, tmp_path / "bundle")
    refresh(again)
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in names:
        assert (made / name).read_bytes() == (again / name).read_bytes(), name
