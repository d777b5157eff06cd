"""Finds photos that are unlike the other photos of their label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from cascade.arrays import Bools, Float32s, Float64s, Ints
from cascade.audit.finding import Finding
from cascade.audit.listing import Listed

__all__ = ["outliers", "strangeness"]

#: So many photos of its label, those nearest to it, say how usual a photo is; copies of it do not count.
_NEAR: Final = 10
#: Robust standard deviations above the median of its label from which a photo is an outlier. On planted
#: photos (`benchmarks/audit_planted.py`) 3.5, the usual rule of Iglewicz and Hoaglin (1993), missed half.
_DEVIATIONS: Final = 3.0
#: Median absolute deviation -> standard deviation of a normal distribution.
_NORMAL: Final = 1.4826
#: A label with fewer photos has no usual distance.
_FEWEST: Final = 20
_ROWS: Final = 512


def strangeness(embeddings: Float32s, labels: Sequence[str], groups: Ints) -> Float64s:
    """Return one minus the mean cosine between each photo and those of its label that are nearest, (N,).

    Args:
        embeddings: (N, D), each of length 1.
        labels: N.
        groups: (N,), photos with the same number are copies of each other.
    """
    names = np.asarray(labels, dtype=str)
    strange = np.zeros(len(names))
    for label in np.unique(names):
        ours = np.flatnonzero(names == label)
        others = embeddings[ours]
        for start in range(0, len(ours), _ROWS):
            rows = ours[start : start + _ROWS]
            close = embeddings[rows] @ others.T
            close[groups[rows][:, None] == groups[ours][None]] = np.nan  # itself and its copies
            strange[rows] = _mean_distance(close)
    return strange


def _mean_distance(close: Float32s) -> Float64s:
    best = -np.sort(-close, axis=1)[:, :_NEAR]  # nan comes last
    count = np.isfinite(best).sum(1)
    total = np.nansum(best, axis=1, dtype=np.float64)
    return np.asarray(np.where(count > 0, 1.0 - total / np.maximum(count, 1), 0.0))


def outliers(photos: Sequence[Listed], strange: Float64s, left_out: Bools) -> Iterator[Finding]:
    """Yield the photos that are unlike those of their label, much more than is usual for it; strangest first.

    The score grows from 0.5 at the limit towards 1.

    Args:
        photos: N.
        strange: (N,), see `strangeness`.
        left_out: (N,), photos that are not reported, because more is known: their label is probably wrong.
    """
    names = np.array([photo.label for photo in photos])
    found = []
    for label in np.unique(names):
        rows = np.flatnonzero(names == label)
        if len(rows) < _FEWEST:
            continue
        usual = float(np.median(strange[rows]))
        spread = _NORMAL * float(np.median(np.abs(strange[rows] - usual)))
        limit = usual + _DEVIATIONS * max(spread, 1e-6)
        found += [
            (float(strange[row] - usual) / (limit - usual), int(row)) for row in rows if strange[row] > limit
        ]
    for ratio, row in sorted(found, reverse=True):
        if not left_out[row]:
            photo = photos[row]
            yield Finding(
                "outlier",
                photo.shown,
                photo.label,
                1.0 - 0.5 / ratio,
                f"{ratio:.1f} times as far from the photos of its label as the limit",
                split=photo.split,
            )
