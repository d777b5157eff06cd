"""Decides which labels a training photo is contrasted with, so that the source of a photo teaches nothing.

Where the photos of a label all come from one source, telling its photos from those of a label of another
source can be learned by telling the sources apart: their sharpness, their compression. So a photo with label
y of source s leaves label l out of its softmax when s does not hold l, but another source holds both y and
l: there that contrast is learned through one lens. A contrast that no source holds stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["excluded_labels", "weighted_contrasts"]

#: Logit of a label that is left out. Finite: a target of 0 times minus infinity would be no number.
_EXCLUDED: Final = -1e4


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


def weighted_contrasts(logits: torch.Tensor, excluded: torch.Tensor, weight: float = 0.0) -> torch.Tensor:
    """Return logits (B, K) in which excluded labels count ``weight`` times as much in the softmax.

    Args:
        logits: (B, K).
        excluded: bool (B, K), see `excluded_labels`.
        weight: 0 leaves the labels out, 1 changes nothing.
    """
    if not weight:
        return logits.masked_fill(excluded, _EXCLUDED)
    return logits + excluded * math.log(weight)
