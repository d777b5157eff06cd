"""Makes sets of labels that contain the right one with a given probability.

Regularised adaptive prediction sets (RAPS: Angelopoulos, Bates, Jordan and Malik 2021, arXiv 2009.14193), in
the form without random numbers, so that the same photo always gets the same set. With the labels of a photo
in the order of falling probability, the label of rank r = 0, 1, ... has the score

    sum of the probabilities of ranks 0 .. r-1   +   penalty * max(0, r - free_ranks)

and belongs to the set if its score is at most the threshold of the wanted coverage, which is the conformal
quantile of the right labels' scores on photos that fitted nothing else. The most probable label has score 0
and is always in. The probability is over photos like those; it does not hold label by label.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from cascade.arrays import Float64s, Floats, Ints
from cascade.errors import BundleError, UsageError
from cascade.validated import NonNegative, OpenShare, Validated

__all__ = ["LabelSets", "set_scores"]


def set_scores(probabilities: Floats, penalty: float, free_ranks: int) -> tuple[Ints, Float64s]:
    """Return the labels of N photos by falling probability, and their scores, both (N, L).

    Scores never fall from rank to rank, so every set consists of the first labels of the order.

    Args:
        probabilities: (N, L).
        penalty: added for every rank beyond the free ones.
        free_ranks: ranks without penalty.
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-wide, axis=1, kind="stable")
    ranked = np.take_along_axis(wide, order, axis=1)
    before = np.zeros_like(ranked)
    before[:, 1:] = np.cumsum(ranked, axis=1)[:, :-1]
    return order, before + penalty * np.maximum(0, np.arange(wide.shape[1]) - free_ranks)


class LabelSets(Validated, frozen=True):
    """The thresholds from which label sets are made.

    Attributes:
        penalty: of the formula, 0 or more.
        free_ranks: of the formula, 0 or more.
        photos: number of photos that the thresholds were computed on.
        thresholds: by rising coverage, (coverage, threshold) with thresholds that never fall.

    Raises:
        BundleError: when a value makes no sense.
    """

    penalty: NonNegative
    free_ranks: Annotated[int, msgspec.Meta(ge=0)]
    photos: int
    thresholds: Annotated[tuple[tuple[OpenShare, float], ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        for (low, q_low), (high, q_high) in zip(self.thresholds, self.thresholds[1:], strict=False):
            if not (low < high and q_low <= q_high):
                raise BundleError(f"label_sets: coverages or thresholds are out of order after {low}")

    @property
    def largest(self) -> float:
        """The largest coverage that can be given."""
        return self.thresholds[-1][0]

    def threshold(self, coverage: float) -> float:
        """Return the threshold of the next stored coverage that is at least the wanted one.

        Raises:
            UsageError: when it is no share, or more than so few photos can give; names the largest.
        """
        if not 0.0 < coverage < 1.0:
            raise UsageError(f"label_set is {coverage}; it is a share between 0 and 1, e.g. 0.95")
        for stored, threshold in self.thresholds:
            if stored >= coverage:
                return threshold
        raise UsageError(
            f"label_set {coverage:g} is more than this bundle can give; the largest is {self.largest:g} "
            f"(calibrated on {self.photos} photos)"
        )

    def columns(self, probabilities: Floats, coverage: float) -> tuple[int, ...]:
        """Return the columns of the labels in the set of one photo, the most probable first.

        Args:
            probabilities: (L,).
            coverage: wanted probability that the right label is among them.

        Raises:
            UsageError: see `threshold`.
        """
        order, scores = set_scores(np.asarray(probabilities)[None], self.penalty, self.free_ranks)
        return tuple(int(column) for column in order[0][scores[0] <= self.threshold(coverage)])
