"""Changes fields of recipes from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from cascade.errors import BundleError, RecipeError, UsageError
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
    changes: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if section not in _SECTIONS or not name:
            raise RecipeError(f"{key!r} is no field of a recipe; the sections are: {', '.join(_SECTIONS)}")
        part = getattr(recipe, section)
        known = [field.name for field in fields(part)]
        if name not in known:
            raise RecipeError(f"[{section}] does not know {name!r}; it knows: {', '.join(known)}")
        changes.setdefault(section, {})[name] = _of_type(key, value, getattr(part, name))
    try:
        # All fields of a section at once: some must agree with each other.
        parts = {section: replace(getattr(recipe, section), **found) for section, found in changes.items()}
        return replace(recipe, **parts)
    except (BundleError, TypeError) as error:
        raise RecipeError(str(error)) from None


def _of_type(key: str, value: Any, like: Any) -> Any:
    """Return the value as the type of the field, if nothing is lost; TOML knows ``1`` as well as ``1.0``."""
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if type(value) is not type(like):
        raise RecipeError(f"{key} is {value!r}, but must be of the kind of {like!r}")
    return value
