"""Gathers what the epochs of one network draw from: views, targets, contrasts and a teacher's opinions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cascade.arrays import Bools, Ints
from cascade.evaluation.dataset import Dataset, Photo
from cascade.training.data.batches import TrainingData
from cascade.training.data.cached_views import cache_views
from cascade.training.data.contrasts import excluded_labels
from cascade.training.data.outliers import load_outliers
from cascade.training.data.sampling import label_weights, learned_from
from cascade.training.fit.backbone import Network
from cascade.training.fit.teacher import soften, teacher_probabilities
from cascade.training.recipe import Recipe
from cascade.training.training_log import TrainingLog

__all__ = ["looked_at", "prepare_training_data", "target_of"]


def target_of(recipe: Recipe, label: str) -> int:
    """Return the index of the logit for a label; an expert's last one for a label that is not its own."""
    labels = list(recipe.labels)
    return labels.index(label) if label in recipe.labels else len(labels)


def looked_at(recipe: Recipe, data: Dataset) -> tuple[Photo, ...]:
    """Return the photos that are seen as prediction sees them: `calibration`, then what is watched."""
    training = data.split("train")
    targets = np.array([target_of(recipe, photo.label) for photo in training])
    return (*data.split("calibration"), *(training[i] for i in learned_from(training, targets, recipe)[1]))


def _left_out(recipe: Recipe, targets: Ints, sources: Sequence[str]) -> Bools:
    """Return the labels that each photo is not contrasted with, (N, K)."""
    if recipe.train.contrasts == "within_source":
        return excluded_labels(targets, sources, recipe.outputs)
    return np.zeros((len(targets), recipe.outputs), dtype=bool)


def prepare_training_data(
    recipe: Recipe,
    network: Network,
    data: Dataset,
    folder: Path,
    *,
    teacher_seed: int,
    device: torch.device,
    log: TrainingLog,
    outliers: Sequence[Photo] = (),
) -> TrainingData:
    """Compute or read everything that an epoch needs.

    Args:
        recipe: of the network.
        network: its frozen part gives the features, computed on ``device``.
        data: as for `fit`.
        folder: of cached features.
        teacher_seed: of the folds of the recipe's teacher.
        device: see ``network``.
        log: shows the progress.
        outliers: as for `fit`.
    """
    training, monitor = data.split("train"), data.split("calibration")
    targets = np.array([target_of(recipe, photo.label) for photo in training])
    learned, watched = learned_from(training, targets, recipe)

    progress = partial(log.step, recipe.name)

    labels: tuple[str, ...] = ()
    teacher = None
    if recipe.teacher.share:
        labels, teacher = teacher_probabilities(
            recipe, training, folder, seed=teacher_seed, device=device, progress=progress
        )
    plain = looked_at(recipe, data)
    views = cache_views(recipe, network.frozen, training, plain, folder, device=device, progress=progress)
    sources = tuple(training[row].collection for row in learned)
    excluded = _left_out(recipe, targets[learned], sources)
    soft = np.where(excluded, 0, soften(recipe, targets, labels, teacher)[learned])
    return TrainingData(
        views=views,
        targets=targets[learned],
        soft=soft / soft.sum(axis=1, keepdims=True),
        excluded=excluded,
        sources=sources,
        rows=learned,
        monitor=np.array([target_of(recipe, photo.label) for photo in monitor]),
        development=targets[watched],
        weights=label_weights(targets[learned], recipe),
        outliers=load_outliers(
            recipe,
            network.frozen,
            outliers,
            set(zip(sources, targets[learned].tolist(), strict=True)),
            folder,
            device=device,
            progress=progress,
        ),
    )
