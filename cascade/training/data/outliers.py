"""Draws photos that are none of the labels, from which a network learns not to be sure of one.

This is outlier exposure (Hendrycks, Mazeika and Dietterich 2019, arXiv 1812.04606) within groups: an aquarium
is indoors, but no label of that group is more probable than another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cascade.evaluation.dataset import Photo, collection_of
from cascade.training.data.cached_views import Progress, cache_views
from cascade.training.recipe import Recipe

__all__ = ["OutlierBatch", "Outliers", "group_columns", "load_outliers", "spread_within_groups"]


@dataclass(frozen=True, slots=True)
class OutlierBatch:
    """Photos of one step that are none of the labels.

    Attributes:
        x: features (B, ...).
        excluded: bool (B, K), labels that are left out of a photo's softmax.
        groups: float32 (K, G), 1 where a label is of a group.
    """

    x: torch.Tensor
    excluded: torch.Tensor
    groups: torch.Tensor


@dataclass(frozen=True, slots=True)
class Outliers:
    """M photos that are none of the labels.

    Attributes:
        views: features (M, ...) of every random view.
        excluded: bool (M, K).
        groups: float32 (K, G), 1 where a label is of a group.
    """

    views: list[npt.NDArray[np.float16]]
    excluded: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.float32]

    def batches(self, recipe: Recipe, epoch: int, device: torch.device) -> Iterator[OutlierBatch | None]:
        """Yield what every step of an epoch sees; None before the epoch with which outliers come in.

        A function of the recipe's seed and the epoch alone.
        """
        plan = recipe.train
        rng = np.random.default_rng([plan.seed, epoch, 1])
        count = round(plan.outliers * plan.batch_size) if epoch >= plan.restart_at else 0
        groups = torch.from_numpy(self.groups).to(device)
        while True:
            if not count:
                yield None
                continue
            rows = rng.integers(len(self.excluded), size=count)
            which = rng.integers(len(self.views), size=count)
            x = torch.from_numpy(np.stack([self.views[v][r] for v, r in zip(which, rows, strict=True)]))
            yield OutlierBatch(x.to(device).float(), torch.from_numpy(self.excluded[rows]).to(device), groups)


def load_outliers(
    recipe: Recipe,
    frozen: nn.Module,
    photos: Sequence[Photo],
    held: Collection[tuple[str, int]],
    folder: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> Outliers | None:
    """Compute or read the views of the photos; None where the recipe or the user has none.

    Args:
        recipe: names share and augmentation.
        frozen: (N, 3, H, W) in 0..255 -> features.
        photos: that are none of the labels.
        held: pairs of a source and the logit of a label that it holds, of the photos that have labels.
        folder: of cached features.
        device: where the frozen part runs.
        progress: called with (what, done, total).
    """
    if not recipe.train.outliers or not photos:
        return None
    excluded = np.zeros((len(photos), recipe.outputs), dtype=bool)
    if recipe.train.contrasts == "within_source":
        # Labels of other sources would be told by their sharpness.
        for row, photo in enumerate(photos):
            known = [target for source, target in held if source == collection_of(photo.source)]
            if known:
                excluded[row] = ~np.isin(np.arange(recipe.outputs), known)
    views = cache_views(recipe, frozen, photos, (), folder, device=device, progress=progress)
    return Outliers(views.training, excluded, group_columns(recipe))


def group_columns(recipe: Recipe) -> npt.NDArray[np.float32]:
    """Return 1 where a logit is of a group, (K, G); an expert's "not mine" is a group of its own."""
    parents = [*recipe.labels.values(), *([""] if recipe.kind == "expert" else [])]
    groups = sorted(set(parents))
    return np.array([[parent == group for group in groups] for parent in parents], dtype=np.float32)


def spread_within_groups(logits: torch.Tensor, batch: OutlierBatch) -> torch.Tensor:
    """Return targets (B, K): what the network says of each group, spread evenly over the group's labels.

    Args:
        logits: (B, K), those of excluded labels far below all others.
        batch: says which labels are excluded and which group each is of.
    """
    allowed = (~batch.excluded).float()
    shares = logits.detach().softmax(1) @ batch.groups
    counts = (allowed @ batch.groups).clamp_min(1)
    return ((shares / counts) @ batch.groups.T) * allowed
