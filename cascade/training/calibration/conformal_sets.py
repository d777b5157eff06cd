"""Fits the thresholds of label sets.

Split conformal prediction with the score of `cascade.guarantees.conformal_sets`: the threshold of a coverage
is the
ceil((n + 1) * coverage)-th smallest score of the right labels of n photos that fitted nothing else (Vovk,
Gammerman and Shafer 2005). Penalty and free ranks are chosen on other photos, for small sets.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from cascade.arrays import Float64s, Ints
from cascade.guarantees.conformal_sets import LabelSets, set_scores

__all__ = ["COVERAGES", "fit_label_sets"]

#: Coverages whose thresholds are stored, as far as there are photos enough.
COVERAGES: Final = tuple(float(c) for c in np.round(np.arange(0.5, 0.9976, 0.0025), 4))
#: What is tried, as in the RAPS paper, and the coverage that sets are made small for.
_PENALTIES: Final = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_FREE_RANKS: Final = (0, 1, 2, 3, 5)
_TUNED_FOR: Final = 0.95


def fit_label_sets(fit: tuple[Float64s, Ints], held_out: tuple[Float64s, Ints]) -> LabelSets | None:
    """Choose penalty and free ranks on one part, take thresholds from the other.

    Args:
        fit: cross-fitted probabilities (N, L) and right columns (N,) of the photos that fitted the arbiter.
        held_out: probabilities and right columns of photos that fitted nothing.

    Returns:
        The numbers; None when there are too few photos for any coverage.
    """
    choices = [(penalty, free) for penalty in _PENALTIES for free in _FREE_RANKS]
    penalty, free = min(choices, key=lambda choice: _mean_size(*fit, *choice))
    scores = np.sort(_scores_of_right(*held_out, penalty, free))
    thresholds = []
    for coverage in COVERAGES:
        rank = math.ceil((len(scores) + 1) * coverage)
        if rank <= len(scores):
            # Rounded up: a set may be larger by a hair, never smaller.
            thresholds.append((coverage, math.ceil(float(scores[rank - 1]) * 1e6) / 1e6))
    return LabelSets(penalty, free, len(scores), tuple(thresholds)) if thresholds else None


def _scores_of_right(probabilities: Float64s, targets: Ints, penalty: float, free_ranks: int) -> Float64s:
    order, scores = set_scores(probabilities, penalty, free_ranks)
    return np.asarray(scores[order == targets[:, None]])


def _mean_size(probabilities: Float64s, targets: Ints, penalty: float, free_ranks: int) -> float:
    order, scores = set_scores(probabilities, penalty, free_ranks)
    right = np.sort(scores[order == targets[:, None]])
    rank = min(math.ceil((len(right) + 1) * _TUNED_FOR), len(right))
    return float((scores <= right[rank - 1]).sum(1).mean())
