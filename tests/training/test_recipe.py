"""Recipes are data: every mistake in one is named with its file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import RecipeError
from cascade.training.recipe import Recipe, load_recipes
from cascade.training.recipe_sections import Augmentation, Backbone, Schedule, Teacher

EXPERTS = Path(__file__).parents[2] / "experts"

GENERAL = """
name = "general"
kind = "general"
[labels]
kitchen = "indoor"
bedroom = "indoor"
coast = "outdoor"
"""
ROOMS = """
name = "rooms"
kind = "expert"
[labels]
kitchen = "indoor"
bedroom = "indoor"
[train]
negatives = 0.5
"""


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def test_the_shipped_recipes_make_one_bundle_of_forty_labels() -> None:
    general, *experts = load_recipes([EXPERTS])
    assert len(general.labels) == 40
    assert set(general.labels.values()) == {"indoor", "outdoor", "food", "drink", "menu"}
    assert {e.name for e in experts} == {"rooms", "nature", "food_drink"}
    covered = [label for e in experts for label in e.labels]
    assert sorted(covered) == sorted(general.labels)


def test_an_expert_has_one_logit_more_than_labels(tmp_path: Path) -> None:
    general, rooms = load_recipes([write(tmp_path, general=GENERAL, rooms=ROOMS)])
    assert (general.outputs, rooms.outputs) == (3, 3)


def test_adding_an_expert_is_adding_a_file(tmp_path: Path) -> None:
    write(tmp_path, general=GENERAL)
    assert len(load_recipes([tmp_path])) == 1
    write(tmp_path, rooms=ROOMS)
    assert len(load_recipes([tmp_path])) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "general",
            GENERAL.replace('kind = "general"', 'kind = "generic"'),
            "expected 'general' or 'expert'",
        ),
        (
            "general",
            GENERAL + "[train]\nepoch = 3\n",
            "unknown field `epoch`; it knows train_from, ",
        ),
        ("general", GENERAL + "[input]\nwidth = 4\nheight = 4\n", "input.width is 4; expected `int` >= 8"),
        ("general", GENERAL + '[backbone]\nweights = "hub"\n', "backbone.weights is 'hub'"),
        ("general", "name = ", "is not TOML"),
        ("general", 'kind = "general"\n', "general.toml: missing required field `name`"),
        ("rooms", ROOMS.replace("negatives = 0.5", "negatives = 0"), "needs train.negatives above 0"),
        ("rooms", ROOMS.replace('kitchen = "indoor"', 'kitchen = "outdoor"'), "kitchen is not a label"),
        ("rooms", ROOMS.replace('"rooms"', '"router"'), "must be an identifier and not 'router'"),
        ("rooms", GENERAL, "exactly one recipe of kind 'general' is needed, found 2"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path, **{"general": GENERAL, name: text})
    with pytest.raises(RecipeError, match=message):
        load_recipes([tmp_path])


def test_the_fingerprint_ignores_words_and_sees_everything_else(tmp_path: Path) -> None:
    path = write(tmp_path, general=GENERAL) / "general.toml"
    plain = Recipe.load(path).fingerprint()
    path.write_text(GENERAL + '[card]\ndata = "mine"\n')
    assert Recipe.load(path).fingerprint() == plain
    path.write_text(GENERAL + "[train]\nseed = 1\n")
    assert Recipe.load(path).fingerprint() != plain


def test_values_outside_their_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="epochs"):
        Schedule(epochs=0)
    with pytest.raises(RecipeError, match="ema_decay"):
        Schedule(ema_decay=1.0)
    with pytest.raises(RecipeError, match="flip"):
        Augmentation(flip=1.5)
    with pytest.raises(RecipeError, match="weights"):
        Backbone(weights="package:")


@pytest.mark.parametrize(
    "plan",
    [
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"focal_gamma": -1.0},
        {"balance": "some"},
        {"cutmix": -0.1},
        {"early_stopping": -1},
        {"development": 0.0},
        {"development": 0.6},
        {"share": 0.0},
        {"share": 1.1},
        {"label_smoothing": 1.0},
        {"dropout": 1.0},
        {"negatives": -1.0},
    ],
)
def test_every_field_of_the_schedule_has_its_range(plan: dict[str, object]) -> None:
    (name,) = plan
    with pytest.raises(RecipeError, match=rf"Schedule\.{name} is "):
        Schedule(**plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, r"Teacher\.share is 1\.5"),
        ({"backbones": (), "weights": (), "sides": ()}, "teacher.backbones names none"),
        ({"sides": (224,)}, "must be equally many"),
        ({"folds": 1}, "Teacher.folds is 1; expected `int` >= 2"),
        ({"strength": 0.0}, r"Teacher\.strength is 0\.0"),
        ({"weights": ("timm", "hub")}, r"weights\[1\] is 'hub'; expected"),
    ],
)
def test_every_field_of_the_teacher_has_its_range(change: dict[str, object], message: str) -> None:
    good = {"share": 0.5, "backbones": ("a", "b"), "weights": ("timm", "none"), "sides": (224, 260)}
    assert Teacher(**good).folds == 5
    with pytest.raises(RecipeError, match=message):
        Teacher(**{**good, **change})


def test_a_teacher_reads_from_a_file(tmp_path: Path) -> None:
    text = '[teacher]\nshare = 0.3\nbackbones = ["a"]\nweights = ["none"]\nsides = [64]\n'
    path = write(tmp_path, general=GENERAL + text) / "general.toml"
    assert Recipe.load(path).teacher == Teacher(0.3, ("a",), ("none",), (64,))
