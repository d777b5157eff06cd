"""Estimates from the photos that people have looked at how good a whole run is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Estimate", "estimate_accuracy"]

_STRATA: Final = 10
#: Standard normal quantile of a 95 % interval.
_Z: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval.

    Attributes:
        value: 0..1.
        low: 0..1.
        high: 0..1.
        looked_at: photos that it rests on.
        photos: photos that it is about.
    """

    value: float
    low: float
    high: float
    looked_at: int
    photos: int


def estimate_accuracy(
    confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], looked_at: npt.NDArray[np.bool_]
) -> Estimate | None:
    """Estimate the share of right answers among all N answered photos.

    People look at doubtful photos first, so the plain share among those would be far too low. The photos are
    therefore split into ten strata of equal size by confidence. Within a stratum the share of right ones is
    estimated from those that were looked at, with their confidence as a prior that weighs as much as one
    photo. What was not looked at is counted with that share (post-stratification, Cochran, Sampling
    Techniques, 5A.9), moved by how much more or less confident its answers are (the difference estimator,
    7.1 there). The interval adds the variances of the strata. Within a stratum the photos that were looked at
    should be like the others: the order "random" makes sure of that.

    Args:
        confidence: (N,) of the answers.
        right: (N,) whether the answer was right; counts only where somebody looked.
        looked_at: (N,) whether somebody looked at this photo alone, not accepted it with many others.

    Returns:
        None when nobody has looked at any.
    """
    count = len(confidence)
    if not count or not looked_at.any():
        return None
    known, variance = 0.0, 0.0
    for stratum in np.array_split(np.argsort(confidence, kind="stable"), min(_STRATA, count)):
        seen = looked_at[stratum]
        n, k = int(seen.sum()), int((right[stratum] & seen).sum())
        rest = len(stratum) - n
        sure = float(confidence[stratum].mean())
        a, b = k + sure, n - k + 1 - sure
        mean = a / (a + b)
        if n and rest:  # what was not looked at is surer or less sure than what was: correct for that
            mean += float(confidence[stratum[~seen]].mean() - confidence[stratum[seen]].mean())
            mean = min(max(mean, 0.0), 1.0)
        known += k + rest * mean
        # Of the share itself, and of the photos that are drawn with it.
        share_variance = a * b / ((a + b) ** 2 * (a + b + 1))
        variance += rest**2 * share_variance + rest * max(mean * (1 - mean) - share_variance, 0.0)
    value, half = known / count, _Z * float(np.sqrt(variance)) / count
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), int(looked_at.sum()), count)
