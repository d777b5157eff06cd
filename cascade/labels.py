"""Holds the labels of a bundle and the broader label, the parent, of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from cascade.arrays import Float64s, Floats
from cascade.errors import BundleError

__all__ = ["NOT_MINE", "UNKNOWN", "LabelTree"]

#: The answer when neither a label nor a parent is probable enough.
UNKNOWN: Final = "unknown"

#: The label with which an expert says that a photo shows none of its labels.
NOT_MINE: Final = "not_mine"


@dataclass(frozen=True, slots=True)
class LabelTree:
    """Leaf labels and their parents.

    Attributes:
        labels: the L leaves, in the order of the columns of `probabilities`.
        parent_of: leaf -> parent. A group of one leaf has that leaf's own name as parent ("menu").

    Raises:
        BundleError: when a leaf has no parent, a name is used twice, or a name is reserved.
    """

    labels: tuple[str, ...]
    parent_of: dict[str, str]
    parents: tuple[str, ...] = field(init=False)
    #: (L, P) 0/1: which leaf belongs to which parent.
    membership: Float64s = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise BundleError(f"a label tree needs at least two labels, not {list(self.labels)}")
        if len(set(self.labels)) != len(self.labels):
            raise BundleError("the label tree names a label twice")
        if set(self.parent_of) != set(self.labels):
            odd = sorted(set(self.parent_of) ^ set(self.labels))
            raise BundleError(f"labels and parents do not match; look at: {', '.join(odd)}")
        parents = tuple(dict.fromkeys(self.parent_of[label] for label in self.labels))
        reserved = {UNKNOWN, NOT_MINE} & {*self.labels, *parents}
        if reserved:
            raise BundleError(f"the name {sorted(reserved)[0]!r} is reserved and cannot be a label")
        for parent in set(parents) & set(self.labels):
            if [leaf for leaf in self.labels if self.parent_of[leaf] == parent] != [parent]:
                raise BundleError(f"{parent!r} is both a label and the parent of other labels")
        object.__setattr__(self, "parents", parents)
        membership = np.zeros((len(self.labels), len(parents)))
        for row, label in enumerate(self.labels):
            membership[row, parents.index(self.parent_of[label])] = 1.0
        object.__setattr__(self, "membership", membership)

    def parent(self, label: str) -> str | None:
        """Return the parent of a leaf, a parent itself for a parent, and None for `UNKNOWN`."""
        if label in self.parent_of:
            return self.parent_of[label]
        return label if label in self.parents else None

    def parent_probabilities(self, probabilities: Floats) -> Float64s:
        """Sum leaf probabilities, shape (..., L), to parent probabilities, shape (..., P)."""
        return np.asarray(probabilities, dtype=np.float64) @ self.membership
