"""`cascade train`, from photos and recipes to a bundle. In: two folders. Out: a third.

    scan -> fit every recipe -> assemble the bundle

Every step leaves its result in the working folder; the same command goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from cascade.classifier import usable_cores
from cascade.dataset import Dataset, Photo, scan
from cascade.errors import DataError, ImageError, UsageError
from cascade.images import load_image
from cascade.training.assemble import assemble
from cascade.training.fit import fit
from cascade.training.pack import take_place
from cascade.training.recipe import load_recipes
from cascade.training.report import Report

__all__ = ["train"]


def train(
    data: Path,
    recipes: Sequence[Path],
    out: Path,
    *,
    work: Path | None = None,
    only: Sequence[str] = (),
    wandb: str = "disabled",
    device: str | None = None,
    name: str | None = None,
    version: str = "0.1.0",
    max_error: float = 0.15,
    int8: bool = False,
) -> None:
    """Train every recipe and write a bundle.

    Args:
        data: labelled photos, see `cascade.dataset.scan`.
        recipes: recipe files or folders of them.
        out: folder of the bundle; replaced if it is one already.
        work: folder for caches and checkpoints; ``OUT.work`` if None.
        only: train just these recipes and write no bundle; for trying things out.
        wandb: see `cascade.training.report.Report`.
        device: ``"cpu"``, ``"cuda"``, ...; None takes a GPU when there is one.
        name: of the bundle; the name of ``out`` if None.
        version: of the bundle.
        max_error: share of wrong answers that the default operating point promises to keep below, or the
            smallest that can be promised if that is more; see `cascade.promise`.
        int8: also pack an int8 variant of every image stage, see `cascade.training.quantize`.

    Raises:
        DataError: when photos are missing or unusable.
        RecipeError: when a recipe is wrong.
        UsageError: when ``only`` names no recipe or the device does not exist.
    """
    stages = load_recipes(recipes)
    unknown = sorted(set(only) - {recipe.name for recipe in stages})
    if unknown:
        raise UsageError(
            f"--only {unknown[0]}: there is no such recipe; there are {', '.join(r.name for r in stages)}"
        )
    where = _device(device)
    _keep_freed_memory()
    work = work or out.with_name(out.name + ".work")
    general = stages[0]
    dataset = _readable(scan(data, general.labels), work)
    for split in ("train", "calibration"):
        if not dataset.split(split):
            raise DataError(f"{data}: there are no photos in the split {split!r}")
    config = {"recipes": {r.name: r.to_dict() for r in stages}, "data": dataset.fingerprint()}
    with Report(wandb=wandb, config=config) as report:
        _say_what_is_there(dataset, report)
        networks = {
            recipe.name: fit(recipe, dataset, work, device=where, report=report)
            for recipe in stages
            if not only or recipe.name in only
        }
        if only:
            report.line(f"trained {', '.join(networks)}; run again without --only for a bundle")
            return
        bundle = work / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir(parents=True)
        assemble(
            bundle,
            stages,
            networks,
            dataset,
            report=report,
            name=name or out.name,
            version=version,
            max_error=max_error,
            int8=int8,
        )
        take_place(bundle, out)
        report.line(f"wrote {out}; measure it with: cascade evaluate {data} --bundle {out}")


def _device(wanted: str | None) -> torch.device:
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


def _readable(dataset: Dataset, work: Path) -> Dataset:
    """Leave out photos that cannot be decoded; the verdict is remembered by content."""
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


def _say_what_is_there(dataset: Dataset, report: Report) -> None:
    splits = Counter(photo.split for photo in dataset.photos)
    report.line(", ".join(f"{count} photos to {split}" for split, count in sorted(splits.items())))
    for path, reason in dataset.dropped[:20]:
        report.line(f"left out {path}: {reason}")
    if len(dataset.dropped) > 20:
        report.line(f"left out {len(dataset.dropped) - 20} more; bundle.json names them all")
