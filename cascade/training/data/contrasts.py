"""Decides which labels a training photo is contrasted with, so that the source of a photo teaches nothing.

Where the photos of a label all come from one source, telling its photos from those of a label of another
source can be learned by telling the sources apart: their sharpness, their compression. So a photo with label
y of source s leaves label l out of its softmax when s does not hold l, but another source holds both y and
l: there that contrast is learned through one lens. A contrast that no source holds stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["excluded_labels"]


def excluded_labels(
    targets: npt.NDArray[np.int64], sources: Sequence[str], labels: int
) -> npt.NDArray[np.bool_]:
    """Return, for every photo, the labels that it is not contrasted with, bool (N, K).

    Args:
        targets: (N,) columns of the right labels.
        sources: N names; equal names are one source.
        labels: K, the number of columns.
    """
    names, which = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    holds = np.zeros((len(names), labels), dtype=bool)
    holds[which, targets] = True
    together = (holds.T.astype(np.int64) @ holds) > 0  # (K, K): some source holds both
    return np.asarray(~holds[which] & together[targets])
