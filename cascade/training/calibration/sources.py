"""Keeps one large source of calibration photos from speaking for all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cascade.arrays import Float64s, Ints
from cascade.evaluation.dataset import collection_of

__all__ = ["promised_collections", "rows_of", "source_weights"]

#: A group of fewer photos cannot prove a share of wrong answers that anybody would ask for.
_LEAST: Final = 60


def source_weights(sources: Sequence[str]) -> Float64s:
    """Return a weight per photo, (N,), 1 on average, inverse to the square root of its source's photos.

    Weights inverse to the number itself would give a source of ten photos the say of one of a thousand, and
    the noise of ten.
    """
    _, which, counts = np.unique(
        np.array([collection_of(source) for source in sources], dtype=str),
        return_inverse=True,
        return_counts=True,
    )
    weights = 1 / np.sqrt(counts[which])
    return np.asarray(weights / weights.mean())


def promised_collections(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the collections in each of which a promise has to be kept, beside all photos together.

    They are the collections of many sources ("web:site-a", "web:site-b") that have enough photos: such a
    collection says how photos of a source fare that nobody has seen before.
    """
    names = sorted({collection_of(source) for source in sources if ":" in source})
    return tuple(name for name in names if len(rows_of(sources, name)) >= _LEAST)


def rows_of(sources: Sequence[str], collection: str) -> Ints:
    """Return the places of the photos of a collection."""
    return np.flatnonzero(np.array([collection_of(source) == collection for source in sources], dtype=bool))
