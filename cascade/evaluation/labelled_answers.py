"""Counts right and wrong answers to photos whose label is known, for any thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cascade.arrays import Bools, Floats, Ints
from cascade.labels import LabelTree
from cascade.policy import answer_kind, best_of

__all__ = ["Counts", "LabelledAnswers", "label_answers"]


class Counts(NamedTuple):
    """Numbers of photos for K pairs of thresholds, each of shape (K,).

    ``answered`` got a label or a broader one, ``labels`` of them a label, ``wrong`` of them a wrong answer,
    and ``out_of_scope`` of the others were unlike everything known.
    """

    answered: Ints
    labels: Ints
    wrong: Ints
    out_of_scope: Ints


@dataclass(frozen=True, slots=True)
class LabelledAnswers:
    """What decides about N photos, and whether it would be right; every array has shape (N,).

    Attributes:
        leaf: probability of the most probable leaf.
        leaf_right: whether that leaf is the right one.
        parent: probability of the most probable parent.
        parent_right: whether that parent is the right one's.
        inside: whether the photo is in scope.
    """

    leaf: Floats
    leaf_right: Bools
    parent: Floats
    parent_right: Bools
    inside: Bools

    def __len__(self) -> int:
        return len(self.leaf)

    def rows(self, index: Ints) -> LabelledAnswers:
        """Return a subset of the photos."""
        return LabelledAnswers(
            self.leaf[index],
            self.leaf_right[index],
            self.parent[index],
            self.parent_right[index],
            self.inside[index],
        )

    def counts(self, leaf_threshold: Floats, parent_threshold: Floats) -> Counts:
        """Count answers for thresholds of shape (K,)."""
        kind = answer_kind(
            self.leaf[:, None], self.parent[:, None], self.inside[:, None], leaf_threshold, parent_threshold
        )
        label, parent = kind == "leaf", kind == "parent"
        wrong = (label & ~self.leaf_right[:, None]) | (parent & ~self.parent_right[:, None])
        return Counts(
            answered=(label | parent).sum(axis=0),
            labels=label.sum(axis=0),
            wrong=wrong.sum(axis=0),
            out_of_scope=(kind == "out_of_scope").sum(axis=0),
        )


def label_answers(probabilities: Floats, targets: Ints, inside: Any, tree: LabelTree) -> LabelledAnswers:
    """Reduce probabilities to what the policy looks at.

    Args:
        probabilities: (N, L), calibrated.
        targets: (N,), columns of the right labels.
        inside: (N,), whether the photo is in scope, or one value for all.
        tree: the bundle's labels.
    """
    best, group = best_of(probabilities, tree), tree.membership.argmax(axis=1)
    return LabelledAnswers(
        leaf=best.leaf_confidence,
        leaf_right=best.leaf == targets,
        parent=best.parent_confidence,
        parent_right=best.parent == group[targets],
        inside=np.broadcast_to(np.asarray(inside, dtype=np.bool_), np.shape(targets)),
    )
