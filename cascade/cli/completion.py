"""Tells a shell which values an option can have, where they come from the bundle, the fields or the recipes.

Each function has the form that click's ``shell_complete`` wants. While somebody types, nothing may fail:
where values cannot be found out, none are offered.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

import click

from cascade.bundle.manifest import Bundle
from cascade.errors import CascadeError
from cascade.inference.variants import AUTO
from cascade.runs.rows import FIELDS

__all__ = ["fields", "operating_points", "recipe_names", "variants"]


def operating_points(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the operating points of the bundle that the command line names."""
    bundle = _bundle(ctx)
    return _starting(incomplete, () if bundle is None else bundle.operating_points)


def variants(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return "auto" and the variants of the bundle that the command line names."""
    bundle = _bundle(ctx)
    return _starting(incomplete, (AUTO, *(() if bundle is None else bundle.variants)))


def fields(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what a list of fields, with commas between them, can go on with."""
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [before + comma + name for name in _starting(last, FIELDS) if name not in given]


def recipe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the recipes that ``--recipes`` names."""
    names: list[str] = []
    for path in map(Path, ctx.params.get("recipes") or ("experts",)):
        for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
            try:
                names.append(str(tomllib.loads(file.read_text(encoding="utf-8"))["name"]))
            except (OSError, ValueError, KeyError):  # not yet a recipe
                continue
    return _starting(incomplete, names)


def _bundle(ctx: click.Context) -> Bundle | None:
    try:
        return Bundle.load(ctx.params.get("bundle"))
    except CascadeError:
        return None


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
