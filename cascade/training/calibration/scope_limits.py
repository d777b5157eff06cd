"""Chooses the scope threshold of every promised share of wrong answers, from photos of none of the labels.

Every answer to such a photo, a stranger, is wrong, and no test on photos with labels says how often one is
answered. So the threshold falls with the share: where fewer wrong answers are promised, fewer strangers are
answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cascade.arrays import Float64s, Floats
from cascade.policy import OperatingPoint, answer_kind, in_scope

__all__ = ["ANSWERED", "StrangeAnswers", "scope_limits"]

#: Of strangers, this many times the promised share of wrong answers may be answered. Then, if one photo in
#: four is a stranger, strangers add no more wrong answers than are promised for the other three.
ANSWERED: Final = 3.0


@dataclass(frozen=True, slots=True)
class StrangeAnswers:
    """What decides about M photos that are none of the labels; every array has shape (M,).

    Attributes:
        leaf: probability of the most probable leaf.
        parent: probability of the most probable parent.
        score: of the scope stage, which did not see them; higher is stranger.
    """

    leaf: Floats
    parent: Floats
    score: Floats

    def answered(self, point: OperatingPoint) -> float:
        """Return the share that an operating point answers, with a label or a broader one."""
        inside = in_scope(self.score, point.scope_threshold)
        kind = answer_kind(self.leaf, self.parent, inside, point.leaf_threshold, point.parent_threshold)
        return round(float(np.isin(kind, ["leaf", "parent"]).mean()), 4)


def scope_limits(
    strangers: StrangeAnswers,
    leaf: Float64s,
    parent: Float64s,
    shares: Float64s,
    *,
    widest: float,
    narrowest: float,
) -> Float64s:
    """Return the scope threshold of every share of wrong answers and every pair of thresholds, (S, K).

    Args:
        strangers: photos that are none of the labels.
        leaf: thresholds of K pairs, (K,).
        parent: likewise.
        shares: of wrong answers, (S,).
        widest: no limit is above it.
        narrowest: no limit is below it, however many strangers are answered.
    """
    kind = answer_kind(strangers.leaf[:, None], strangers.parent[:, None], True, leaf, parent)
    # (M + 1, K): the scores of the strangers that a pair answers, rising, and then no more.
    scores = np.sort(np.where(kind == "doubtful", np.inf, strangers.score[:, None]), axis=0)
    scores = np.concatenate([scores, np.full((1, scores.shape[1]), np.inf)])
    allowed = np.minimum(ANSWERED * shares * len(strangers.score), len(strangers.score)).astype(np.int64)
    # Just below the first that would be one too many; six digits, as bundle.json says it.
    return np.clip(np.floor(scores[allowed] * 1e6 - 1) / 1e6, min(narrowest, widest), widest)
