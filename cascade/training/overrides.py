"""Changes fields of recipes from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cascade.errors import RecipeError, UsageError
from cascade.training.recipe import Recipe

__all__ = ["override", "parse_settings"]

#: Sections of a recipe whose fields may be changed. Name, kind and labels are what a recipe is.
_SECTIONS: Final = ("backbone", "input", "augment", "train", "teacher")


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``SECTION.FIELD=VALUE``; the value is TOML, and a word that is no TOML is a string.

    Raises:
        UsageError: when there is no ``=`` or a field is given twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set {text}: write SECTION.FIELD=VALUE, e.g. --set train.epochs=3")
        if key in settings:
            raise UsageError(f"--set {key}: is given twice")
        try:
            settings[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = value.strip()
    return settings


def override(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe with some fields changed; what comes out is validated as a file is.

    Args:
        recipe: to start from.
        settings: dotted field -> value, e.g. ``{"train.epochs": 3}``.

    Raises:
        RecipeError: when there is no such field, or the value is of another type or out of range.
    """
    data = recipe.to_dict()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if section not in _SECTIONS or not name:
            raise RecipeError(f"{key!r} is no field of a recipe; the sections are: {', '.join(_SECTIONS)}")
        data[section] = data[section] | {name: value}
    return Recipe.from_dict(data)  # all fields at once: some must agree with each other
