"""From probabilities to an answer. In: one row of calibrated probabilities, the label tree and an operating
point. Out: a `Decision`. A pure function; thresholds are data of the bundle.

    1. the most probable leaf, if its probability reaches `leaf_threshold`;
    2. else the most probable parent, if the sum of its leaves reaches `parent_threshold`;
    3. else "unknown".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from cascade.errors import BundleError
from cascade.labels import UNKNOWN, LabelTree

__all__ = ["REASONS", "Decision", "OperatingPoint", "decide"]

#: Every `reason` that a decision can carry.
REASONS: Final[dict[str, str]] = {
    "leaf": "the label's confidence reaches the threshold for labels",
    "parent": "no label is sure enough, but their common parent is",
    "doubtful": "neither a label nor a parent is sure enough",
}


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What decides between a label, a broader label and "unknown".

    Attributes:
        leaf_threshold: a leaf is answered when its probability is at least this, 0..1.
        parent_threshold: likewise for a parent, 0..1.
        cost_weight: an expert is asked when its gain exceeds ``cost_weight`` times its cost, where cost
            is in units of one run of the general model; 0 or more.

    Raises:
        BundleError: when a value is outside its range.
    """

    leaf_threshold: float
    parent_threshold: float
    cost_weight: float

    def __post_init__(self) -> None:
        for name in ("leaf_threshold", "parent_threshold"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise BundleError(f"operating point: {name} is {value}, not in 0..1")
        if not self.cost_weight >= 0.0:
            raise BundleError(f"operating point: cost_weight is {self.cost_weight}, below 0")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from the JSON form; raises `BundleError` when keys are missing or unknown."""
        try:
            return cls(**data)
        except TypeError as error:
            raise BundleError(f"an operating point is wrong: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer.

    Attributes:
        label: a leaf, a parent, or `cascade.labels.UNKNOWN`.
        parent: the parent of the label; the label itself if it is a parent; None if unknown.
        confidence: the calibrated probability of the label; if unknown, of the most probable leaf,
            which was not good enough.
        reason: a key of `REASONS`.
    """

    label: str
    parent: str | None
    confidence: float
    reason: str


def decide(probabilities: npt.NDArray[np.floating], tree: LabelTree, point: OperatingPoint) -> Decision:
    """Turn one row of probabilities into an answer.

    Args:
        probabilities: shape (L,), in the order of ``tree.labels``, summing to one.
        tree: labels and parents.
        point: thresholds. Ties go to the label that comes first in the tree.
    """
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    label = tree.labels[best]
    if confidence >= point.leaf_threshold:
        return Decision(label, tree.parent_of[label], confidence, "leaf")
    parents = tree.parent_probabilities(probabilities)
    broad = int(np.argmax(parents))
    if float(parents[broad]) >= point.parent_threshold:
        parent = tree.parents[broad]
        return Decision(parent, parent, float(parents[broad]), "parent")
    return Decision(UNKNOWN, None, confidence, "doubtful")
