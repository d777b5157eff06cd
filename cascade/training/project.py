"""Reads the recipes and finds the photos and the device that every training command starts from."""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cascade.errors import DataError, ImageError, UsageError
from cascade.evaluation.dataset import Dataset, Photo, scan
from cascade.imaging.decoding import load_image
from cascade.inference.cpu import usable_cores
from cascade.training.calibration.cross_fitting import FEWEST_TO_CALIBRATE
from cascade.training.default_recipes import recipes_for
from cascade.training.fit.backbone import check_weights
from cascade.training.fit.losses import make_loss
from cascade.training.overrides import override
from cascade.training.recipe import Recipe, linked, load_recipes
from cascade.training.training_log import TrainingLog

__all__ = ["Project", "choose_device", "open_project", "readable", "strangers_in"]


@dataclass(frozen=True, slots=True)
class Project:
    """Recipes and photos that were checked.

    Attributes:
        recipes: of the whole bundle, the general one first.
        chosen: those that are to be worked on.
        data: photos that can be read, of all labels of the bundle.
        work: folder for caches and checkpoints.
        device: where to compute.
        outliers: photos that are none of the labels, for recipes that learn from them.
    """

    recipes: tuple[Recipe, ...]
    chosen: tuple[Recipe, ...]
    data: Dataset
    work: Path
    device: torch.device
    outliers: tuple[Photo, ...] = ()

    @property
    def views(self) -> Path:
        """Folder of cached features."""
        return self.work / "views"

    @property
    def teacher_seed(self) -> int:
        """Seed of every teacher's folds: recipes with the same teacher share its opinions."""
        return self.recipes[0].train.seed

    def introduce(self, log: TrainingLog) -> None:
        """Say which photos there are and which were left out."""
        splits = Counter(photo.split for photo in self.data.photos)
        log.line(", ".join(f"{count} photos to {split}" for split, count in sorted(splits.items())))
        for path, reason in self.data.dropped[:20]:
            log.line(f"left out {path}: {reason}")
        if len(self.data.dropped) > 20:
            log.line(f"left out {len(self.data.dropped) - 20} more; bundle.json names them all")
        without = [r.name for r in self.chosen if r.train.outliers and not self.outliers]
        if without:
            log.line(f"{', '.join(without)}: train.outliers has no photos; give some with --out-of-scope DIR")


def open_project(
    data: Path | Sequence[Path],
    recipes: Sequence[Path],
    work: Path,
    *,
    only: Sequence[str] = (),
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Project:
    """Read recipes and find photos.

    Args:
        data: folders of labelled photos, see `cascade.evaluation.dataset.scan`.
        recipes: recipe files or folders of them; see `default_recipes` for what is taken if there are none.
        work: folder for caches and checkpoints; made if it is not there.
        only: names of the recipes to work on; all of them if empty.
        device: ``"cpu"``, ``"cuda"``, ...; None takes a GPU when there is one.
        settings: dotted field -> value, for all recipes; see `cascade.training.overrides.override`.
        label_map: name of a folder -> label that it stands for.

    Raises:
        DataError: when photos are missing or unusable.
        RecipeError: when a recipe or a setting is wrong.
        UsageError: when ``only`` names no recipe or the device does not exist.
    """
    found = load_recipes(recipes) if recipes else recipes_for(scan(data, label_map=label_map).labels)
    stages = linked([override(recipe, settings or {}) for recipe in found])
    unknown = sorted(set(only) - {recipe.name for recipe in stages})
    if unknown:
        raise UsageError(
            f"--only {unknown[0]}: there is no such recipe; there are {', '.join(r.name for r in stages)}"
        )
    for recipe in stages:
        # What is wrong or missing shows now, not after hours of caching.
        make_loss(recipe.train)
        check_weights(recipe.backbone)
    where = choose_device(device)
    dataset = readable(scan(data, stages[0].labels, label_map), work)
    _check_splits(dataset, stages[0].labels)
    chosen = tuple(recipe for recipe in stages if not only or recipe.name in only)
    _keep_freed_memory()
    return Project(stages, chosen, dataset, work, where)


def _check_splits(dataset: Dataset, labels: Iterable[str]) -> None:
    """Find out now, not after the training, that photos are missing; raises `DataError`."""
    unseen = sorted(set(labels) - {photo.label for photo in dataset.split("train")})
    if unseen:
        raise DataError(f"{dataset.folder}: there is no photo to train on for {', '.join(unseen)}; add some")
    left = len(dataset.split("calibration"))
    if left < FEWEST_TO_CALIBRATE:
        raise DataError(
            f"{dataset.folder}: there are {left} photos to calibrate on, at least {FEWEST_TO_CALIBRATE} are "
            "needed; put more into the split 'calibration', or give LABEL/FILE with 6 photos or more of "
            "each label, and they are split for you"
        )


def strangers_in(folder: Path, work: Path) -> Dataset:
    """Find photos that are none of the labels: FOLDER/{train,calibration}/KIND/FILE, or FOLDER/KIND/FILE.

    Those of `train` are learned from, those of `calibration` limit how many strangers are answered; photos
    of `test` are left for measuring.

    Args:
        folder: the names of the kinds do not matter.
        work: where it is remembered which photos cannot be read.

    Raises:
        DataError: when there is no photo.
    """
    found = readable(scan(folder), work / "out_of_scope")
    photos = (*found.split("train"), *found.split("calibration"))
    if not photos:
        raise DataError(f"{folder}: has no photos that are none of the labels; expected KIND/FILE below it")
    return Dataset(found.folder, photos, found.dropped)


def choose_device(wanted: str | None) -> torch.device:
    """Return the device of a name; None takes a GPU when there is one. Raises `UsageError`."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"--device {wanted}: cannot be used here ({first}); try cpu") from error
    return device


def _keep_freed_memory() -> None:
    """Tell glibc not to hand large blocks back to the system after every step.

    Activations of a batch are tens of megabytes; fetching them anew each time costs a good part
    of a training step. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        top_pad, trim_threshold, mmap_max = -2, -1, -4  # from malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 512 * 2**20)


def readable(dataset: Dataset, work: Path) -> Dataset:
    """Leave out photos that cannot be decoded; the verdict is remembered by content, in ``work``."""
    path = work / "unreadable.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}

    def check(photo: Photo) -> tuple[str, str]:
        if photo.sha256 not in known:
            try:
                load_image(photo.path, target=(64, 64))
            except ImageError as error:
                return photo.sha256, str(error)
            return photo.sha256, ""
        return photo.sha256, known[photo.sha256]

    with ThreadPoolExecutor(usable_cores()) as pool:
        known = dict(pool.map(check, dataset.photos))
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known))
    good = tuple(photo for photo in dataset.photos if not known[photo.sha256])
    bad = tuple((p.path, known[p.sha256]) for p in dataset.photos if known[p.sha256])
    return Dataset(dataset.folder, good, dataset.dropped + bad)
