"""Counts right and wrong answers to photos whose label is known, for any thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cascade.arrays import Bools, Floats, Ints
from cascade.labels import LabelTree
from cascade.policy import answer_kind, best_of, in_scope

__all__ = ["Counts", "LabelledAnswers", "label_answers"]


class Counts(NamedTuple):
    """Numbers of photos for K pairs of thresholds, each of shape (K,), or (S, K).

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
        score: of the scope stage; higher is stranger. Without a scope stage nothing looks at it.
    """

    leaf: Floats
    leaf_right: Bools
    parent: Floats
    parent_right: Bools
    score: Floats

    def __len__(self) -> int:
        return len(self.leaf)

    def rows(self, index: Ints) -> LabelledAnswers:
        """Return a subset of the photos."""
        return LabelledAnswers(
            self.leaf[index],
            self.leaf_right[index],
            self.parent[index],
            self.parent_right[index],
            self.score[index],
        )

    def counts(self, leaf_threshold: Floats, parent_threshold: Floats, scope_threshold: Any) -> Counts:
        """Count answers.

        Args:
            leaf_threshold: (K,).
            parent_threshold: (K,).
            scope_threshold: a number, None for no limit, or (S, K) for counts of that shape.
        """
        kind = answer_kind(self.leaf[:, None], self.parent[:, None], True, leaf_threshold, parent_threshold)
        label, parent = kind == "leaf", kind == "parent"
        wrong = (label & ~self.leaf_right[:, None]) | (parent & ~self.parent_right[:, None])

        def count(limits: Any) -> list[Ints]:
            inside = np.broadcast_to(in_scope(self.score[:, None], limits), label.shape)
            return [(inside & these).sum(axis=0) for these in (label | parent, label, wrong, True)]

        if np.ndim(scope_threshold) < 2:
            found = count(scope_threshold)
        else:
            rows, place = np.unique(scope_threshold, axis=0, return_inverse=True)
            found = list(np.stack([np.stack(count(row)) for row in rows], axis=1)[:, place])
        answered, labels, mistaken, inside = found
        return Counts(answered, labels, mistaken, len(self) - inside)


def label_answers(
    probabilities: Floats, targets: Ints, score: Floats | None, tree: LabelTree
) -> LabelledAnswers:
    """Reduce probabilities to what the policy looks at.

    Args:
        probabilities: (N, L), calibrated.
        targets: (N,), columns of the right labels.
        score: (N,), of the scope stage; None without one.
        tree: the bundle's labels.
    """
    best, group = best_of(probabilities, tree), tree.membership.argmax(axis=1)
    return LabelledAnswers(
        leaf=best.leaf_confidence,
        leaf_right=best.leaf == targets,
        parent=best.parent_confidence,
        parent_right=best.parent == group[targets],
        score=np.full(np.shape(targets), np.nan) if score is None else score,
    )
