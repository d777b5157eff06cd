"""Estimates how long training each recipe will take, from a few photos and steps.

Draws from generators of its own and trains a network that is thrown away, so results do not change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cascade.evaluation.dataset import Photo
from cascade.inference.cpu import usable_cores
from cascade.training.data.cached_views import WORKERS, Features, Pixels, cache_key, missing_photos
from cascade.training.data.sampling import learned_from, size_of_epoch
from cascade.training.fit.backbone import Network, backbone_file, build
from cascade.training.fit.checkpoint import Checkpoint
from cascade.training.fit.network import is_finished
from cascade.training.fit.optimizer import parameter_groups
from cascade.training.fit.teacher import MOST_ITERATIONS, extractors, opinions_file
from cascade.training.fit.training_data import looked_at, target_of
from cascade.training.fit.training_step import Stepper
from cascade.training.project import Project
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Augmentation
from cascade.training.training_log import TrainingLog

__all__ = ["Estimate", "announce", "estimate", "in_words", "measure_recipe"]

#: Photos that are read and run; steps that are made, after a first one that does not count, and their batch.
_PHOTOS, _STEPS, _BATCH = 13, 2, 16
#: Rows of features that are multiplied once.
_ROWS = 2000
#: Share of its iterations that a teacher's logistic regression takes before it has converged, about.
_ITERATIONS = 0.5
#: A forward pass without gradients, relative to a step of training on as many photos.
_FORWARD = 1 / 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that one recipe still takes.

    Attributes:
        name: of the recipe.
        teaching: the opinions of its teacher, unless they are there or an earlier recipe asks for them.
        caching: computing the views that are not there yet and that no earlier recipe computes.
        training: the epochs that are not finished yet; early stopping may make it less.
    """

    name: str
    teaching: float
    caching: float
    training: float

    @property
    def seconds(self) -> float:
        """All together."""
        return self.teaching + self.caching + self.training


def announce(project: Project, log: TrainingLog) -> None:
    """Say how long each recipe takes, and all together."""
    found = estimate(project)
    for each in found:
        if each.seconds:
            parts = f"{in_words(each.caching)} for views" if each.caching else "views are there"
            parts += f", {in_words(each.teaching)} for the teacher" if each.teaching else ""
            most = next(r for r in project.chosen if r.name == each.name).train.early_stopping
            log.line(f"{each.name}: {'at most' if most else 'about'} {in_words(each.seconds)} ({parts})")
        else:
            log.line(f"{each.name}: is trained already")
    log.line(f"in all about {in_words(sum(each.seconds for each in found))} of training")


def in_words(seconds: float) -> str:
    """Return a duration as people say it: ``40 s``, ``25 min``, ``1 h 5 min``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def estimate(project: Project) -> tuple[Estimate, ...]:
    """Measure what a photo and a step cost, and multiply. What comes after training is not in it."""
    found = []
    coming: set[str] = set()  # caches that an earlier recipe fills
    measured: dict[str, tuple[float, float]] = {}
    training = project.data.split("train")
    with torch.random.fork_rng(devices=[]):
        for recipe in project.chosen:
            path = project.work / recipe.name / "checkpoint.pt"
            history = Checkpoint(path, recipe, project.data, project.outliers).history()
            if is_finished(history, recipe.train):
                found.append(Estimate(recipe.name, 0.0, 0.0, 0.0))
                continue
            plain = looked_at(recipe, project.data)
            key = cache_key(recipe, [*training, *plain])
            missing = 0 if key in coming else missing_photos(recipe, training, plain, project.views)
            coming.add(key)
            # Recipes that share the cut and the batch cost the same, but for the width of the classifier.
            speed = f"{key} {recipe.train.batch_size}"
            if speed not in measured:
                measured[speed] = _measure_apart(recipe, training[:_PHOTOS], project, project.views / key)
            per_photo, per_step = measured[speed]
            targets = np.array([target_of(recipe, photo.label) for photo in training])
            learned = targets[learned_from(training, targets, recipe)[0]]
            steps = max(sum(size_of_epoch(learned, recipe)) // recipe.train.batch_size, 1)
            per_epoch = per_step * (steps + _FORWARD * len(plain) / recipe.train.batch_size)
            left = recipe.train.epochs - len(history)
            teaching = _teaching(recipe, training, project, coming)
            found.append(Estimate(recipe.name, teaching, missing * per_photo, left * per_epoch))
    return tuple(found)


def _teaching(recipe: Recipe, training: Sequence[Photo], project: Project, coming: set[str]) -> float:
    """Return the seconds that a recipe's teacher takes; ``coming`` is what earlier recipes compute."""
    if not recipe.teacher.share:
        return 0.0
    path = opinions_file(recipe, training, project.views, project.teacher_seed)
    if path.is_file() or path.name in coming:
        return 0.0
    coming.add(path.name)
    seconds, width = 0.0, 0
    for each in extractors(recipe):
        key = cache_key(each, training)
        per_photo, features = _reading(
            each, build(each), None, training[:_PHOTOS], project, project.views / key
        )
        width += features.shape[1]
        if key not in coming and not (project.views / key / "plain.npy").is_file():
            seconds += per_photo * len(training)
        coming.add(key)
    # An iteration multiplies the features of all photos with the weights, and back.
    labels = len({photo.label for photo in training})
    rows = min(len(training), _ROWS)
    features, weights = np.ones((rows, width), np.float32), np.ones((width, labels), np.float32)
    started = time.perf_counter()
    features.T @ (features @ weights)
    per_row = (time.perf_counter() - started) / rows
    folds = recipe.teacher.folds
    return seconds + (folds - 1) * len(training) * per_row * MOST_ITERATIONS * _ITERATIONS


def _reading(
    recipe: Recipe,
    network: Network,
    augment: Augmentation | None,
    photos: Sequence[Photo],
    project: Project,
    home: Path,
) -> tuple[float, npt.NDArray[Any]]:
    """Return seconds per photo that is cached, and the features of some."""
    home.mkdir(parents=True, exist_ok=True)
    # What it exports for onnxruntime is kept; caching uses the same file.
    run = Features(network.frozen, recipe.input, home, project.device)
    pixels = Pixels(photos, recipe.input, augment, seed=0)
    images, reading = [], []
    for index in range(len(photos)):
        started = time.perf_counter()
        images.append(pixels[index])
        reading.append(time.perf_counter() - started)
    batch = torch.stack(images)
    features = run(batch)
    started = time.perf_counter()
    features = run(batch)
    running = (time.perf_counter() - started) / len(batch)
    read = float(np.mean(reading[1:] or reading))
    # Readers and network work at the same time, as far as there are cores.
    return max(read / WORKERS, read / usable_cores() + running), features


def _measure_apart(
    recipe: Recipe, photos: Sequence[Photo], project: Project, home: Path
) -> tuple[float, float]:
    """Measure a recipe, on random weights if the network that it starts from is not trained yet."""
    kind, _, name = recipe.backbone.weights.partition(":")
    if kind != "stage" or backbone_file(project.work, name).is_file():
        return measure_recipe(recipe, photos, project, home)
    untrained = recipe.replace(backbone=recipe.backbone.replace(weights="none"))
    with TemporaryDirectory() as scratch:
        return measure_recipe(untrained, photos, project, Path(scratch))


def measure_recipe(
    recipe: Recipe, photos: Sequence[Photo], project: Project, home: Path
) -> tuple[float, float]:
    """Return seconds per photo that is cached, and per step of training."""
    network, plan, device = build(recipe, project.work), recipe.train, project.device
    per_photo, features = _reading(recipe, network, recipe.augment, photos, project, home)
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(network, plan), weight_decay=plan.weight_decay)
    stepper = Stepper(network, None, optimizer, plan, torch.ones(recipe.outputs, device=device))
    network.train()
    count = min(plan.batch_size, _BATCH)
    rows = np.resize(np.arange(len(features)), count)
    x = torch.from_numpy(features[rows].astype(np.float32)).to(device)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    soft = torch.full((count, recipe.outputs), 1 / recipe.outputs, device=device)
    seconds = []
    for _ in range(_STEPS + 1):
        started = time.perf_counter()
        stepper(x, soft, 1.0)
        seconds.append(time.perf_counter() - started)
    return per_photo, float(np.min(seconds[1:])) * plan.batch_size / count
