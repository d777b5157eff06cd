"""Makes an expert for a few labels out of a network that the bundle has already: only its head is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sklearn.model_selection import StratifiedKFold

from cascade.arrays import Float32s, Floats, Ints, softmax
from cascade.bundle.stage import ImageStage
from cascade.labels import NOT_MINE
from cascade.training.learning.fit_head import Lesson, fit_head
from cascade.training.learning.heads import Head
from cascade.training.learning.lessons import Material, targets_of

__all__ = ["Base", "choose_base", "material_of", "untrained"]

#: Only to compare networks; what the head may do in the end is chosen by `learn_head`.
_PULL: Final = 1e-3
_FOLDS: Final = 3


@dataclass(frozen=True, slots=True)
class Base:
    """The network that a new expert stands on.

    Attributes:
        stage: an image stage of the bundle.
        losses: image stage -> mean log loss, cross-validated, of a head on its embedding.
    """

    stage: ImageStage
    losses: Mapping[str, float]


def untrained(width: int, labels: int) -> Head:
    """Return a head that has learned nothing: all labels and "not mine" are equally likely."""
    return Head(np.zeros((labels + 1, width)), np.zeros(labels + 1))


def material_of(
    columns: Sequence[str],
    memory: tuple[Floats, Floats],
    memory_labels: tuple[Sequence[str], Sequence[str]],
    new: Floats,
    new_labels: Sequence[str],
    *,
    taught: int,
) -> Material:
    """Return what the head of a stage learns from.

    Args:
        columns: labels of the stage.
        memory: embeddings that fit heads, and embeddings that do not.
        memory_labels: of both.
        new: (N, D), embeddings of corrections.
        new_labels: of them.
        taught: how many of the columns, the first ones, the stage knows already.
    """
    return Material(
        memory[0],
        targets_of(memory_labels[0], columns),
        memory[1],
        targets_of(memory_labels[1], columns),
        new,
        targets_of(new_labels, columns),
        taught,
    )


def choose_base(
    stages: Sequence[ImageStage],
    known: Mapping[str, Float32s],
    known_labels: Sequence[str],
    new: Mapping[str, Float32s],
    new_labels: Sequence[str],
    own: Sequence[str],
    seed: int,
) -> Base:
    """Return the image stage whose embedding tells the labels of a new expert apart best.

    Args:
        stages: of the bundle.
        known: image stage -> embeddings of photos in memory.
        known_labels: of them.
        new: image stage -> embeddings of the new photos.
        new_labels: of them.
        own: labels of the new expert.
        seed: of the folds.
    """
    columns = [*own, NOT_MINE]
    targets = targets_of([*known_labels, *new_labels], columns)
    losses = {
        stage.name: _loss(np.concatenate([known[stage.name], new[stage.name]]), targets, len(columns), seed)
        for stage in stages
    }
    best = min(stages, key=lambda stage: losses[stage.name])
    return Base(best, losses)


def _loss(embedding: Floats, targets: Ints, count: int, seed: int) -> float:
    """Return the log loss of a head on an embedding, each label counting the same."""
    frequency = np.maximum(np.bincount(targets, minlength=count), 1)
    weights = 1 / frequency[targets]
    losses, each = np.zeros(len(targets)), np.eye(count)
    parts = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    for fit, judged in parts.split(embedding, targets):
        start = untrained(embedding.shape[1], count - 1)
        head = fit_head(start, Lesson(embedding[fit], each[targets[fit]], weights[fit]), _PULL)
        right = softmax(head.logits(embedding[judged]))[np.arange(len(judged)), targets[judged]]
        losses[judged] = -np.log(np.maximum(right, 1e-12))
    return float(np.average(losses, weights=weights))
