"""Decides what every head learns from corrections and memory, and how far it may move for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sklearn.model_selection import KFold

from cascade.arrays import Float32s, Floats, Ints, softmax
from cascade.labels import NOT_MINE
from cascade.training.learning.fit_head import PULLS, Lesson, fit_head
from cascade.training.learning.heads import Head

__all__ = ["Learned", "Material", "learn_head", "targets_of"]

#: Of all that a head learns from, corrections count at least so much, however few they are.
_LEAST_SHARE: Final = 0.05
#: Share of right answers that a head may lose about photos that it was not fitted on.
_MAY_FORGET: Final = 0.005
_FOLDS: Final = 3
_EPSILON: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Material:
    """What one head learns from.

    Attributes:
        known: (M, D), embeddings of memory that heads are fitted on.
        known_targets: (M,), columns of the head.
        kept: (C, D), embeddings of memory that heads are not fitted on; they say what is forgotten.
        kept_targets: (C,).
        new: (N, D), embeddings of corrections.
        new_targets: (N,).
        taught: how many labels, the first ones, an old head knew, whose answers about the known photos are to
            be kept; 0 if there is no old head.
    """

    known: Floats
    known_targets: Ints
    kept: Floats
    kept_targets: Ints
    new: Floats
    new_targets: Ints
    taught: int


@dataclass(frozen=True, slots=True)
class Learned:
    """A head that was fitted anew.

    Attributes:
        head: as the graphs store it.
        new_logits: (N, K), of the corrections, each by a head that was fitted without it.
        pull: that was chosen; see `cascade.training.learning.fit_head`. None if the old head was better.
    """

    head: Head
    new_logits: Float32s
    pull: float | None


def targets_of(labels: Sequence[str], columns: Sequence[str]) -> Ints:
    """Return the column of each label; what an expert does not know is "not mine", its last column."""
    place = {label: column for column, label in enumerate(columns)}
    return np.array([place[label] if label in place else place[NOT_MINE] for label in labels], dtype=np.int64)


def learn_head(
    start: Head,
    material: Material,
    *,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Learned:
    """Fit a head, with the pull that is best for corrections it was fitted without.

    Pulls that forget are out: those with which the share of right answers about what must be kept falls by
    more than `_MAY_FORGET`, and by more than one photo. The head that is there takes part; it stays where
    nothing can be learned.

    Args:
        start: with a row for each new label already.
        material: what there is to learn from.
        seed: of the partitions.
        progress: called with (done, total).
    """
    known = _said(start, material)
    folds = list(KFold(min(_FOLDS, len(material.new)), shuffle=True, random_state=seed).split(material.new))
    new_logits = start.logits(material.new)
    if bool((new_logits.argmax(axis=1) == material.new_targets).all()):
        return Learned(start.stored(), new_logits, None)  # nothing to mend
    best, chosen = _log_loss(new_logits, material.new_targets), None
    least = _right(start, material) - max(_MAY_FORGET, 1 / max(len(material.kept), 1))
    begin = [start] * len(folds)
    for done, pull in enumerate(PULLS, 1):
        logits, kept = np.zeros_like(new_logits), []
        for place, (fit, judged) in enumerate(folds):
            head = fit_head(start, _lesson(material, known, fit), pull, begin[place])
            begin[place] = head
            logits[judged] = head.logits(material.new[judged])
            kept.append(_right(head, material))
        progress(done, len(PULLS))
        loss = _log_loss(logits, material.new_targets)
        # All are compared: a weaker pull may forget less, where it tells a new label from old ones better.
        if float(np.mean(kept)) >= least and loss < best:
            best, chosen, new_logits = loss, pull, logits
    if chosen is None:
        return Learned(start.stored(), new_logits, None)
    everything = np.arange(len(material.new))
    return Learned(
        fit_head(start, _lesson(material, known, everything), chosen, begin[0]).stored(), new_logits, chosen
    )


def _said(start: Head, material: Material) -> Floats:
    """Return what the old head says of the known photos, (M, K); without one their labels."""
    if not material.taught:
        return np.asarray(np.eye(len(start.bias))[material.known_targets])
    said = np.zeros((len(material.known), len(start.bias)))
    said[:, : material.taught] = softmax(start.logits(material.known)[:, : material.taught])
    return said


def _lesson(material: Material, known: Floats, rows: Ints) -> Lesson:
    """Return what a head is fitted on: known photos, and those corrections."""
    count, each = len(material.known), np.eye(known.shape[1])
    share = max(len(rows) / (len(rows) + count), _LEAST_SHARE) if count else 1.0
    weights = np.concatenate(
        [np.full(count, (1 - share) / max(count, 1)), np.full(len(rows), share / len(rows))]
    )
    return Lesson(
        np.concatenate([material.known, material.new[rows]]),
        np.concatenate([known, each[material.new_targets[rows]]]),
        weights,
    )


def _right(head: Head, material: Material) -> float:
    """Return the share of right answers about what must be kept; 1 if there is nothing."""
    if not len(material.kept):
        return 1.0
    return float((head.logits(material.kept).argmax(axis=1) == material.kept_targets).mean())


def _log_loss(logits: Floats, targets: Ints) -> float:
    right = softmax(logits)[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(right, _EPSILON)).mean())
