"""Finds the photos whose embeddings are closest, exactly, some hundred rows of the comparison at a time."""

from __future__ import annotations

from typing import Final

import numpy as np

from cascade.arrays import Float32s, Ints

__all__ = ["LOOKED_AT", "nearest"]

#: So many nearest photos are enough to find copies among them, and to say how strange a photo is.
LOOKED_AT: Final = 20

#: Photos that are compared with all others at a time: 512 x 100,000 similarities are 200 MB.
_ROWS: Final = 512


def nearest(embeddings: Float32s, count: int) -> tuple[Ints, Float32s]:
    """Return the nearest other photos of every photo, and how close they are.

    Args:
        embeddings: (N, D), each of length 1; N above 0.
        count: how many; fewer where there are not so many others.

    Returns:
        Two arrays (N, count): places among the photos, the closest first; cosines of the angles.
    """
    n = len(embeddings)
    count = min(count, n - 1)
    places = np.empty((n, count), dtype=np.int64)
    cosines = np.empty((n, count), dtype=np.float32)
    for start in range(0, n, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n))
        close = embeddings[rows] @ embeddings.T
        close[np.arange(len(rows)), rows] = -np.inf
        if count < n - 1:
            found = np.argpartition(-close, count, axis=1)[:, :count]
        else:
            found = np.argsort(-close, axis=1)[:, :count]
        values = np.take_along_axis(close, found, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        places[rows] = np.take_along_axis(found, order, axis=1)
        cosines[rows] = np.take_along_axis(values, order, axis=1)
    return places, cosines
