"""Gives a second opinion on the label of every training photo.

Features of several frozen networks side by side and a logistic regression over them, cross-fitted: no photo
is judged by a teacher that saw its label. So a wrong label is contradicted instead of learned by heart, and
a photo that shows two things (a bar in a restaurant) gets both. Mixed into the labels, this is label
refinement (Bagherinezhad et al. 2018, arXiv 1805.02641) by distillation (Hinton et al. 2015,
arXiv 1503.02531).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.evaluation.dataset import Photo
from cascade.training.data.cached_views import cache_plain
from cascade.training.fit.backbone import build
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Backbone, Schedule, Teacher

__all__ = [
    "MOST_ITERATIONS",
    "extractors",
    "opinions",
    "opinions_file",
    "soften",
    "teacher_features",
    "teacher_probabilities",
]

#: Of the logistic regression of one fold.
MOST_ITERATIONS: Final = 300


def teacher_probabilities(
    recipe: Recipe,
    photos: Sequence[Photo],
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[str, int, int], None],
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Ask the recipe's teacher about the training photos, or read what it said before.

    Args:
        recipe: its teacher and how its input is prepared.
        photos: of the split `train`, all labels that the bundle knows.
        folder: where features and opinions are kept; recipes with the same teacher share them.
        seed: of the folds; the same for all recipes of a bundle, whichever asks first.
        device: where features are computed.
        progress: called with (what, done, total).

    Returns:
        Labels in alphabetical order (L,), and probabilities (N, L).
    """
    labels = tuple(sorted({photo.label for photo in photos}))
    path = opinions_file(recipe, photos, folder, seed)
    if not path.is_file():
        features = teacher_features(recipe, photos, folder, device=device, progress=progress)
        progress("teacher", 0, 1)
        probabilities = opinions(features, np.array([p.label for p in photos]), recipe.teacher, seed)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, probabilities)
        partial.replace(path)
        progress("teacher", 1, 1)
    return labels, np.load(path)


def opinions_file(recipe: Recipe, photos: Sequence[Photo], folder: Path, seed: int) -> Path:
    """Return where the opinions of a recipe's teacher are kept, whether they are there or not."""
    prepared = recipe.input.to_dict() | {"width": None, "height": None}  # the teacher has sides of its own
    opinion = recipe.teacher.to_dict() | {"share": None, "seed": seed, "input": prepared}
    parts = [opinion, [(p.label, p.sha256) for p in photos]]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"teacher_{key}.npy"


def extractors(recipe: Recipe) -> Iterator[Recipe]:
    """Give, for each backbone of a recipe's teacher, a recipe that describes its frozen features."""
    teacher = recipe.teacher
    for name, weights, side in zip(teacher.backbones, teacher.weights, teacher.sides, strict=True):
        yield Recipe(
            name="general",
            kind="general",
            labels=recipe.labels,
            backbone=Backbone(name, weights),
            input=recipe.input.replace(width=side, height=side),
            train=Schedule(train_from="head"),
        )


def teacher_features(
    recipe: Recipe,
    photos: Sequence[Photo],
    folder: Path,
    *,
    device: torch.device,
    progress: Callable[[str, int, int], None],
) -> npt.NDArray[np.float32]:
    """Return the features of all backbones of a recipe's teacher side by side, (N, D)."""
    parts = [
        cache_plain(each, build(each).frozen, photos, folder, device=device, progress=progress)
        for each in extractors(recipe)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def opinions(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.str_], teacher: Teacher, seed: int
) -> npt.NDArray[np.float32]:
    """Judge every photo by a logistic regression that was fitted on the other folds.

    Args:
        features: (N, D).
        labels: (N,) of L different labels.
        teacher: number of folds, and the penalty.
        seed: of the folds.

    Returns:
        Probabilities (N, L), labels in alphabetical order.
    """
    names, counts = np.unique(labels, return_counts=True)
    probabilities = np.tile((counts / len(labels)).astype(np.float32), (len(labels), 1))
    if counts.max() < 2:
        # One photo of each label teaches nothing: how common the labels are is all that is known.
        return probabilities
    folds = StratifiedKFold(max(min(teacher.folds, int(counts.min())), 2), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label of a single photo is unknown to the fold that judges it; nothing to act on.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = list(folds.split(features, labels))
    for train, held_out in parts:
        if len(np.unique(labels[train])) < 2:
            continue  # nothing to tell apart
        probabilities[held_out] = 0.0
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=teacher.strength, max_iter=MOST_ITERATIONS)
        )
        model.fit(features[train], labels[train])
        probabilities[np.ix_(held_out, np.searchsorted(names, model.classes_))] = model.predict_proba(
            features[held_out]
        )
    return probabilities


def soften(
    recipe: Recipe,
    targets: npt.NDArray[np.int64],
    labels: Sequence[str],
    probabilities: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.float32]:
    """Return what a network is asked to learn, (N, K): smoothed labels, mixed with the teacher's opinion.

    An expert's "not mine" gets what the teacher gives to all labels that are not its own.

    Args:
        recipe: of the network, with K logits.
        targets: (N,) logit of each photo's label.
        labels: of the columns of ``probabilities``.
        probabilities: (N, L), or None without a teacher.
    """
    classes, smoothing = recipe.outputs, recipe.train.label_smoothing
    soft = np.full((len(targets), classes), smoothing / classes, dtype=np.float32)
    soft[np.arange(len(targets)), targets] += 1 - smoothing
    if probabilities is None:
        return soft
    own = list(recipe.labels)
    opinion = np.zeros_like(soft)
    for column, label in enumerate(labels):
        opinion[:, own.index(label) if label in own else classes - 1] += probabilities[:, column]
    share = recipe.teacher.share
    return (1 - share) * soft + share * opinion
