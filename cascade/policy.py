"""Turns the probabilities of one photo into an answer: a label, a broader label or "unknown".

The functions are pure. The thresholds come from the bundle, and its POLICY.md states the same rule for other
programming languages. The first line that applies decides:

    1. "unknown", if the scope score is above `scope_threshold`: the photo is unlike those of the training;
    2. else the most probable leaf, if its probability reaches `leaf_threshold`;
    3. else the most probable parent, if the sum of its leaves reaches `parent_threshold`;
    4. else "unknown".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.arrays import Float64s, Floats, Ints
from cascade.errors import BundleError, UsageError
from cascade.labels import UNKNOWN, LabelTree
from cascade.validated import NonNegative, OpenShare, Share, Validated

__all__ = ["REASONS", "Best", "Decision", "OperatingPoint", "answer_kind", "best_of", "decide", "in_scope"]

#: Every `reason` that a decision can carry.
REASONS: Final[dict[str, str]] = {
    "leaf": "the label's confidence reaches the threshold for labels",
    "parent": "no label is sure enough, but their common parent is",
    "doubtful": "neither a label nor a parent is sure enough",
    "out_of_scope": "the photo is unlike every photo that the labels were learned from",
}


class OperatingPoint(Validated, frozen=True):
    """The thresholds that decide between a label, a broader label and "unknown".

    Attributes:
        leaf_threshold: a leaf is answered when its probability is at least this, 0..1.
        parent_threshold: likewise for a parent, 0..1.
        cost_weight: an expert is asked when its gain exceeds ``cost_weight`` times its cost, where cost
            is in units of one run of the general model; 0 or more.
        scope_threshold: a photo whose scope score is above this is "unknown"; None ignores the score.
        max_error: share of wrong answers that is promised, see `cascade.guarantees.risk_control`; None
        promises nothing.

    Raises:
        BundleError: when a value is outside its range.
    """

    leaf_threshold: Share
    parent_threshold: Share
    cost_weight: NonNegative
    scope_threshold: float | None = None
    max_error: OpenShare | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope_threshold is not None and not math.isfinite(self.scope_threshold):
            raise BundleError(f"OperatingPoint.scope_threshold is {self.scope_threshold}, not a number")


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one photo, and why it was given.

    Attributes:
        label: a leaf, a parent, or `cascade.labels.UNKNOWN`.
        parent: the parent of the label; the label itself if it is a parent; None if unknown.
        confidence: calibrated probability of the label, 0..1. If the label is unknown, that of the most
            probable leaf; for a photo out of scope it has no meaning.
        reason: a key of `REASONS`.
    """

    label: str
    parent: str | None
    confidence: float
    reason: str


class Best(NamedTuple):
    """The best leaf and the best parent of N photos, all of shape (N,); ties go to the first in the tree."""

    leaf: Ints
    leaf_confidence: Float64s
    parent: Ints
    parent_confidence: Float64s


def best_of(probabilities: Floats, tree: LabelTree) -> Best:
    """Return the best leaf and the best parent of each row.

    Args:
        probabilities: (N, L), in the order of ``tree.labels``, rows summing to one.
        tree: labels and parents.
    """
    leaves = np.asarray(probabilities, dtype=np.float64)
    parents = tree.parent_probabilities(leaves)
    return Best(leaves.argmax(1), leaves.max(1), parents.argmax(1), parents.max(1))


def in_scope(score: Any, threshold: Any) -> Any:
    """Return whether scope scores are at most the threshold; nan is out of scope.

    Args:
        score: a number or an array.
        threshold: a number, an array that is broadcast against the score, or None for no threshold.

    Raises:
        UsageError: when there is a threshold and no score.
    """
    if threshold is None:
        return True if score is None else np.ones(np.shape(score), dtype=np.bool_)
    if score is None:
        raise UsageError("this operating point needs the photo's scope score; pass the output of scope.onnx")
    return np.asarray(score) <= threshold


def answer_kind(
    leaf_confidence: Any, parent_confidence: Any, inside: Any, leaf_threshold: Any, parent_threshold: Any
) -> npt.NDArray[np.str_]:
    """Return the key of `REASONS` that the confidences give; the one place where the rule is written.

    Args:
        leaf_confidence: of the most probable leaf.
        parent_confidence: of the most probable parent.
        inside: whether the photo is in scope, see `in_scope`.
        leaf_threshold: see `OperatingPoint`.
        parent_threshold: see `OperatingPoint`. The five are broadcast against each other.
    """
    tests = np.broadcast_arrays(
        np.logical_not(inside), leaf_confidence >= leaf_threshold, parent_confidence >= parent_threshold
    )
    return np.select(tests, ["out_of_scope", "leaf", "parent"], "doubtful")


def decide(
    probabilities: Floats, tree: LabelTree, point: OperatingPoint, scope_score: float | None = None
) -> Decision:
    """Turn one row of probabilities into an answer.

    Args:
        probabilities: shape (L,), in the order of ``tree.labels``, summing to one.
        tree: labels and parents.
        point: thresholds. Ties go to the label that comes first in the tree.
        scope_score: of the photo, from `scope.onnx`; higher is stranger.

    Raises:
        UsageError: when the operating point has a scope threshold and there is no score.
    """
    inside = in_scope(scope_score, point.scope_threshold)
    best = best_of(np.asarray(probabilities)[None], tree)
    leaf, broad = tree.labels[best.leaf[0]], tree.parents[best.parent[0]]
    confidence, broad_confidence = float(best.leaf_confidence[0]), float(best.parent_confidence[0])
    reason = str(
        answer_kind(confidence, broad_confidence, inside, point.leaf_threshold, point.parent_threshold)
    )
    if reason == "leaf":
        return Decision(leaf, tree.parent_of[leaf], confidence, reason)
    if reason == "parent":
        return Decision(broad, broad, broad_confidence, reason)
    return Decision(UNKNOWN, None, confidence, reason)
