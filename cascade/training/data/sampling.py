"""Decides which photos are held out, which an epoch takes, and how much each label weighs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cascade.evaluation.dataset import Photo
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule

__all__ = [
    "development_part",
    "label_weights",
    "learned_from",
    "photos_of_epoch",
    "sampling_chances",
    "size_of_epoch",
]

Indices = npt.NDArray[np.int64]

#: Photos that are enough to compare two networks, and fewer than which are not worth holding out.
_MOST_COMPARED: Final = 500
_LEAST_COMPARED: Final = 10


def development_part(photos: Sequence[Photo], plan: Schedule) -> Indices:
    """Return the places of the photos of `train` that are not learned from: they judge, see `Schedule`.

    Drawn label by label, in the order of the photos' hashes, so that recipes of one bundle hold the same
    photos out and share their caches. Without early stopping they only compare averaged and last weights:
    then they are 500 at most, and none where they would be fewer than 10.
    """
    share = plan.development
    if not plan.early_stopping:
        share = min(share, _MOST_COMPARED / max(len(photos), 1))
    aside: list[int] = []
    for label in sorted({photo.label for photo in photos}):
        rows = sorted((i for i, p in enumerate(photos) if p.label == label), key=lambda i: photos[i].sha256)
        aside += rows[: round(len(rows) * share)]
    if not plan.early_stopping and len(aside) < _LEAST_COMPARED:
        aside = []
    return np.array(sorted(aside), dtype=np.int64)


def learned_from(photos: Sequence[Photo], targets: Indices, recipe: Recipe) -> tuple[Indices, Indices]:
    """Split the training photos into those that are learned from and those of the `development_part`.

    The same for every epoch and every run.

    Args:
        photos: of the split `train`.
        targets: of each, its logit.
        recipe: what `Schedule.share` leaves out is in neither part.

    Returns:
        Two arrays of places among the photos; the second may be empty.
    """
    rng = np.random.default_rng(recipe.train.seed)
    watched = development_part(photos, recipe.train)
    left = np.setdiff1d(np.arange(len(photos)), watched)
    learned = []
    for target in np.unique(targets[left]):
        order = rng.permutation(left[targets[left] == target])
        # At least one photo of each label, however small the share.
        learned.append(order[: max(round(len(order) * recipe.train.share), 1)])
    return np.sort(np.concatenate(learned)), watched


def size_of_epoch(targets: Indices, recipe: Recipe) -> tuple[int, int]:
    """Return how many photos of its own and how many others an epoch takes."""
    own = int((targets < len(recipe.labels)).sum())
    return own, min(round(own * recipe.train.negatives), len(targets) - own)


def photos_of_epoch(
    targets: Indices, recipe: Recipe, epoch: int, sources: Sequence[str] | None = None
) -> Indices:
    """Return shuffled indices into ``targets``: photos of its own, for an expert also a fresh draw of others.

    With ``train.balance = "sampling"`` photos are drawn with replacement, with a probability of
    ``label_share ** -label_balance * source_share ** -source_balance * emphasis``; otherwise each comes once.

    Args:
        targets: (N,) columns of the right labels; for an expert, the number of its labels for all others.
        recipe: says how many, and how they are balanced.
        epoch: every epoch draws anew.
        sources: N names; None if there is one source.
    """
    rng = np.random.default_rng([recipe.train.seed, epoch])
    own = np.flatnonzero(targets < len(recipe.labels))
    foreign = np.flatnonzero(targets == len(recipe.labels))
    _, count = size_of_epoch(targets, recipe)
    if recipe.train.balance == "sampling":
        names = [""] * len(targets) if sources is None else sources
        chances = sampling_chances(targets, names, recipe.train)
        drawn = rng.choice(foreign, count, p=_normalised(chances[foreign])) if count else foreign[:0]
        own = rng.choice(own, size=len(own), p=_normalised(chances[own]))
    else:
        drawn = rng.choice(foreign, size=count, replace=False) if count else foreign[:0]
    return rng.permutation(np.concatenate([own, drawn]))


def sampling_chances(targets: Indices, sources: Sequence[str], plan: Schedule) -> npt.NDArray[np.float64]:
    """Return how often each photo is drawn relative to others, (N,)."""
    labels = np.bincount(targets)[targets] / len(targets)
    names, which = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    shares = np.bincount(which)[which] / len(targets)
    emphasis = np.array([plan.emphasis.get(str(name), 1.0) for name in names])[which]
    return np.asarray(labels**-plan.label_balance * shares**-plan.source_balance * emphasis)


def _normalised(chances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(chances / chances.sum())


def label_weights(targets: Indices, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Return a weight per logit (K,): 1, or inverse to how often the label occurs, 1 on average over photos.

    "Not mine" is no label of its own and keeps the weight 1.
    """
    weights = np.ones(recipe.outputs, dtype=np.float32)
    if recipe.train.balance == "weights":
        labels = len(recipe.labels)
        counts = np.bincount(targets[targets < labels], minlength=labels).clip(1)
        weights[:labels] = counts.sum() / (labels * counts)
    return weights
