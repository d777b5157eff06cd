"""Recipe fields from the command line."""

from __future__ import annotations

import pytest

from cascade.errors import RecipeError, UsageError
from cascade.training.overrides import override, parse_settings
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Teacher

RECIPE = Recipe(name="general", kind="general", labels={"a": "x", "b": "x"})


def test_settings_are_toml_and_words_are_strings() -> None:
    texts = ["train.epochs=3", "train.loss = focal", 'backbone.name="resnet18"', "teacher.sides=[224, 260]"]
    assert parse_settings(texts) == {
        "train.epochs": 3,
        "train.loss": "focal",
        "backbone.name": "resnet18",
        "teacher.sides": [224, 260],
    }
    assert parse_settings(["backbone.weights=file:a=b.pth"]) == {"backbone.weights": "file:a=b.pth"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["train.epochs"], "write SECTION.FIELD=VALUE"),
        (["=3"], "write SECTION.FIELD=VALUE"),
        (["train.epochs=3", "train.epochs=4"], "is given twice"),
    ],
)
def test_a_setting_that_is_none_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(texts)


def test_only_what_is_named_changes() -> None:
    changed = override(RECIPE, {"train.epochs": 3, "input.width": 96, "augment.flip": 0})
    assert (changed.train.epochs, changed.input.width, changed.augment.flip) == (3, 96, 0.0)
    assert isinstance(changed.augment.flip, float)
    assert override(changed, {"train.epochs": 16, "input.width": 224, "augment.flip": 0.5}) == RECIPE
    assert override(RECIPE, {}).fingerprint() == RECIPE.fingerprint()


def test_fields_that_must_agree_change_together() -> None:
    changed = override(
        RECIPE,
        {
            "teacher.share": 0.5,
            "teacher.backbones": ["a"],
            "teacher.weights": ["none"],
            "teacher.sides": [64],
        },
    )
    assert changed.teacher == Teacher(0.5, ("a",), ("none",), (64,))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", 3, "is no field of a recipe; the sections are: backbone"),
        ("labels.a", "y", "is no field of a recipe"),
        ("name", "b", "is no field of a recipe"),
        ("train.epoch", 3, "train: contains unknown field `epoch`; it knows train_from, epochs"),
        ("train.epochs", 2.5, "train.epochs is 2.5; expected `int`, got `float`"),
        ("train.epochs", True, "expected `int`, got `bool`"),
        ("train.learning_rate", "fast", "expected `float`, got `str`"),
        ("train.learning_rate", True, "expected `float`, got `bool`"),
        ("train.epochs", 0, "train.epochs is 0; expected `int` >= 1"),
        ("input.width", 4, "input.width is 4; expected `int` >= 8"),
        ("teacher.share", 0.5, "names none"),
    ],
)
def test_a_wrong_setting_is_a_wrong_recipe(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        override(RECIPE, {key: value})
