"""Runs views of photos through the frozen part of a network and caches the features on disk.

One file per view, so that a run that was stopped goes on with the view it was at. Recipes that share
backbone, input, augmentation and frozen part share the files: experts cost nothing extra here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cascade.evaluation.dataset import Photo
from cascade.imaging.decoding import load_image
from cascade.imaging.preprocessing import InputSpec, prepare
from cascade.onnx_runtime import ort
from cascade.training.data.augmentation import random_view
from cascade.training.export.image_graph import export_graph
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Augmentation

__all__ = [
    "WORKERS",
    "Features",
    "Pixels",
    "Views",
    "cache_key",
    "cache_plain",
    "cache_views",
    "missing_photos",
]

Progress = Callable[[str, int, int], None]

_BATCH = 64
#: Processes that read photos.
WORKERS = 2


class Pixels(TorchDataset[torch.Tensor]):
    """Photo -> uint8 (3, H, W): a random view, or what prediction sees if there is no augmentation."""

    def __init__(
        self, photos: Sequence[Photo], spec: InputSpec, augment: Augmentation | None, seed: int
    ) -> None:
        self.photos, self.spec, self.augment, self.seed = photos, spec, augment, seed

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> torch.Tensor:
        path = self.photos[index].path
        if self.augment is None:
            image = load_image(path, target=self.spec.decode_target, reducing_gap=self.spec.reducing_gap)
            return torch.from_numpy(prepare(image, self.spec).copy()).permute(2, 0, 1)
        # Twice the input is enough to crop from and much faster to decode than 12 megapixels.
        image = load_image(path, target=self.spec.decode_target, reducing_gap=2.0)
        return random_view(image, self.spec, self.augment, self.seed + index)


class Features:
    """The frozen part of a network, ready to run: on a GPU with torch, on a CPU with onnxruntime.

    onnxruntime gives the same features several times faster there.
    """

    def __init__(self, frozen: nn.Module, spec: InputSpec, home: Path, device: torch.device) -> None:
        self.device = device
        self.module = frozen.eval()
        self.session: ort.InferenceSession | None = None
        if device.type == "cpu":
            example = torch.zeros(2, 3, spec.height, spec.width, dtype=torch.uint8)
            path = home / "frozen.onnx"
            if not path.is_file():
                partial = path.with_suffix(".partial")
                onnx.save(export_graph(self.module, example, "image", ["features"]), partial)
                partial.replace(path)
            self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> npt.NDArray[Any]:
        """(N, 3, H, W) uint8 -> features of (N, ...)."""
        if self.session is not None:
            return np.asarray(self.session.run(None, {"image": images.numpy()})[0])
        moved = images.to(self.device).contiguous(memory_format=torch.channels_last)
        features = self.module.to(self.device)(moved)
        return np.asarray(features.cpu().numpy())


class Views:
    """Features of P photos in V random views, and of P' photos as prediction sees them.

    Attributes:
        training: V arrays, float16 (P, ...).
        monitor: float16 (P', ...), of photos that are only looked at.
    """

    def __init__(self, training: list[npt.NDArray[Any]], monitor: npt.NDArray[Any]) -> None:
        self.training = training
        self.monitor = monitor


def cache_key(recipe: Recipe, photos: Sequence[Photo]) -> str:
    """Return a name for the cache: equal if and only if the cached values are."""
    content = recipe.to_dict()
    content = {
        "backbone": content["backbone"],
        "start": content["start"],
        "input": content["input"],
        "augment": {k: v for k, v in content["augment"].items() if k != "views"},
        "train_from": recipe.train.train_from,
        "photos": [photo.sha256 for photo in photos],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def cache_views(
    recipe: Recipe,
    frozen: nn.Module,
    training: Sequence[Photo],
    monitor: Sequence[Photo],
    folder: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> Views:
    """Compute what is not yet there and return all views of a recipe.

    Args:
        recipe: names the augmentation and the number of views.
        frozen: (N, 3, H, W) in 0..255 -> features.
        training: photos to augment.
        monitor: photos to see as prediction does.
        folder: where the files of all recipes live.
        device: where the frozen part runs.
        progress: called with (what, done, total).
    """
    home = folder / cache_key(recipe, [*training, *monitor])
    home.mkdir(parents=True, exist_ok=True)
    features = Features(frozen, recipe.input, home, device)
    views = []
    for number in range(recipe.augment.views):
        path = home / f"view_{number:02}.npy"
        if not path.is_file():
            # The seed leaves room for every photo; it is that of the view, not of the recipe, so that
            # recipes can share it.
            pixels = Pixels(training, recipe.input, recipe.augment, seed=(number + 1) * 10_000_019)
            what = f"view {number + 1} of {recipe.augment.views}"
            _write(path, pixels, features, what, progress)
        views.append(np.load(path, mmap_mode="r"))
    if not monitor:
        return Views(views, views[0][:0])
    path = home / "monitor.npy"
    if not path.is_file():
        pixels = Pixels(monitor, recipe.input, None, seed=0)
        _write(path, pixels, features, "photos without augmentation", progress)
    return Views(views, np.load(path, mmap_mode="r"))


def missing_photos(recipe: Recipe, training: Sequence[Photo], monitor: Sequence[Photo], folder: Path) -> int:
    """Return how many photos `cache_views` would have to read and run, counted once for each view."""
    home = folder / cache_key(recipe, [*training, *monitor])
    views = sum(not (home / f"view_{n:02}.npy").is_file() for n in range(recipe.augment.views))
    return views * len(training) + (not (home / "monitor.npy").is_file()) * len(monitor)


def cache_plain(
    recipe: Recipe,
    frozen: nn.Module,
    photos: Sequence[Photo],
    folder: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> npt.NDArray[Any]:
    """Compute the features of photos as prediction sees them, float16 (N, ...), unless they are there.

    The arguments are those of `cache_views`.
    """
    home = folder / cache_key(recipe, photos)
    home.mkdir(parents=True, exist_ok=True)
    path = home / "plain.npy"
    if not path.is_file():
        pixels = Pixels(photos, recipe.input, None, seed=0)
        what = f"features of {recipe.backbone.name}"
        _write(path, pixels, Features(frozen, recipe.input, home, device), what, progress)
    plain: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    return plain


def _write(
    path: Path,
    pixels: Pixels,
    frozen: Features,
    what: str,
    progress: Progress,
) -> None:
    loader: DataLoader[torch.Tensor] = DataLoader(
        pixels, batch_size=_BATCH, num_workers=WORKERS, persistent_workers=False
    )
    partial = path.with_suffix(".partial")
    output: npt.NDArray[Any] | None = None
    done = 0
    for batch in loader:
        # Half precision on disk: twice the photos fit in memory, and the error is far below that of
        # the augmentation.
        features = frozen(batch).astype(np.float16)
        if output is None:
            shape = (len(pixels), *features.shape[1:])
            output = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        output[done : done + len(features)] = features
        done += len(features)
        progress(what, done, len(pixels))
    assert output is not None
    output.flush()
    partial.rename(path)
