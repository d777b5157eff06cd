"""Which photos an epoch takes, and how much each label weighs. In: targets. Out: indices, weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cascade.training.recipe import Recipe

__all__ = ["label_weights", "learned_from", "photos_of_epoch", "size_of_epoch"]

Indices = npt.NDArray[np.int64]


def learned_from(targets: Indices, recipe: Recipe) -> tuple[Indices, Indices]:
    """Split the training photos into those that are learned from and those that early stopping watches.

    Drawn label by label, so that both parts hold every label; the same for every epoch and every run.

    Returns:
        Two arrays of indices into ``targets``; the second is empty without early stopping. What
        `Schedule.share` leaves out is in neither.
    """
    rng = np.random.default_rng(recipe.train.seed)
    learned, watched = [], []
    for target in np.unique(targets):
        order = rng.permutation(np.flatnonzero(targets == target))
        aside = round(len(order) * recipe.train.development) if recipe.train.early_stopping else 0
        watched.append(order[:aside])
        # At least one photo of each label, however small the share.
        count = max(round((len(order) - aside) * recipe.train.share), 1)
        learned.append(order[aside : aside + count])
    return np.sort(np.concatenate(learned)), np.sort(np.concatenate(watched))


def size_of_epoch(targets: Indices, recipe: Recipe) -> tuple[int, int]:
    """Return how many photos of its own and how many others an epoch takes."""
    own = int((targets < len(recipe.labels)).sum())
    return own, min(round(own * recipe.train.negatives), len(targets) - own)


def photos_of_epoch(targets: Indices, recipe: Recipe, epoch: int) -> Indices:
    """Return shuffled indices into ``targets``: photos of its own, for an expert also a fresh draw of others.

    With balanced sampling the photos of its own are drawn with replacement, every label equally often on
    average; otherwise each comes once.
    """
    rng = np.random.default_rng([recipe.train.seed, epoch])
    own = np.flatnonzero(targets < len(recipe.labels))
    foreign = np.flatnonzero(targets == len(recipe.labels))
    _, count = size_of_epoch(targets, recipe)
    drawn = rng.choice(foreign, size=count, replace=False) if count else foreign[:0]
    if recipe.train.balance == "sampling":
        frequency = np.bincount(targets[own], minlength=len(recipe.labels))[targets[own]]
        own = rng.choice(own, size=len(own), p=(1 / frequency) / (1 / frequency).sum())
    return rng.permutation(np.concatenate([own, drawn]))


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
