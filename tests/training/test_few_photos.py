"""What everybody tries first: a handful of photos end in a bundle that says what it cannot promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_training import GENERAL

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")
pytest.importorskip("onnxscript", reason="needs the extra `train`")

from cascade import Bundle, Cascade
from cascade.errors import DataError
from cascade.evaluation.evaluate import evaluate_folder
from cascade.inference.golden_check import verify
from cascade.training.project import open_project
from cascade.training.run import train

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

LABELS = ("red", "green", "blue")


def write_photos(folder: Path, labels: int, count: int) -> Path:
    """Write LABEL/N.png, noisy squares of one colour, and return the folder."""
    rng = np.random.default_rng(labels)
    for channel, label in enumerate(LABELS[:labels]):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(60 + 140 * np.eye(3)[channel] + rng.normal(0, 50, (32, 32, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


def write_recipes(folder: Path, labels: int, *, expert: bool = False) -> Path:
    """Write recipes in which every label is a group of its own, as for a plain folder of photos."""
    folder.mkdir()
    own = [f'{label} = "{label}"' for label in LABELS[:labels]]
    start, rest = GENERAL.split("[labels]")[0], GENERAL.split("[backbone]")[1]
    (folder / "general.toml").write_text(start + "\n".join(["[labels]", *own, "[backbone]"]) + rest)
    if expert:
        start = start.replace('"general"\nkind = "general"', '"some"\nkind = "expert"')
        text = start + "\n".join(["[labels]", *own[:2], "[backbone]"]) + rest + "negatives = 1.0\n"
        (folder / "some.toml").write_text(text)
    return folder


@pytest.mark.parametrize(("labels", "count", "expert"), [(2, 10, False), (3, 28, False), (3, 10, True)])
def test_a_handful_of_photos_makes_a_bundle_that_says_what_it_cannot_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: int, count: int, expert: bool
) -> None:
    photos = write_photos(tmp_path / "photos", labels, count)
    recipes = write_recipes(tmp_path / "recipes", labels, expert=expert)
    out = tmp_path / "bundle"
    train(photos, [recipes], out, device="cpu", int8=count == 10)
    said = capsys.readouterr().err
    bundle = Bundle.load(out)
    assert all(found.usable for found in verify(bundle) if found.variant == "exact")
    answer = Cascade(out).predict(photos / "red" / "0.png")
    assert answer.label in (*LABELS[:labels], "unknown")
    assert evaluate_folder(photos, bundle=out).photos
    card, metrics = (out / "README.md").read_text(), json.loads((out / "metrics.json").read_text())
    missing = metrics["calibration"]["shortfalls"]
    assert bundle.scope is None
    assert any("0.15 takes at least 23 photos that were held out" in each for each in missing)
    assert any("0.95 takes 19 photos that were held out" in each for each in missing)
    assert any("Confidences are hardly calibrated" in each for each in missing)
    assert "## What it cannot promise" in card
    for each in missing:
        assert each in card
        assert each in said
    # Nothing is promised that is worth nothing, and what can be promised is not asked for in vain.
    assert bundle.operating_points["default"].max_error is None
    assert "nan" not in (out / "metrics.json").read_text().lower()


def test_an_early_stopping_recipe_copes_with_a_handful(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2, 6)
    recipes = write_recipes(tmp_path / "recipes", 2)
    settings = {"train.early_stopping": 1, "train.epochs": 2}
    train(photos, [recipes], tmp_path / "bundle", device="cpu", settings=settings)
    assert len(json.loads((tmp_path / "bundle" / "metrics.json").read_text())["training"]["general"]) == 2


def test_too_few_photos_are_said_before_the_training(tmp_path: Path) -> None:
    recipes = write_recipes(tmp_path / "recipes", 2)
    photos = write_photos(tmp_path / "two", 2, 2)
    with pytest.raises(DataError, match=r"2 photos to calibrate on, at least 3 are needed.*6 photos or more"):
        open_project(photos, [recipes], tmp_path / "work")
    photos = write_photos(tmp_path / "split" / "train", 1, 10).parent
    for split in ("calibration", "test"):
        write_photos(photos / split, 2, 3)
    with pytest.raises(DataError, match="no photo to train on for green"):
        open_project(photos, [recipes], tmp_path / "work")
