"""Draws the batches of an epoch from cached views and soft targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from timm.data import Mixup

from cascade.training.data.cached_views import Views
from cascade.training.data.outliers import Outliers
from cascade.training.data.sampling import photos_of_epoch, size_of_epoch
from cascade.training.recipe import Recipe

__all__ = ["TrainingData", "batches"]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything that the epochs of one network draw from; P photos are learned from.

    Attributes:
        views: features; their photos are all of `train`, see ``rows``.
        targets: (P,) logit of each photo's label.
        soft: float32 (P, K), what the network is asked to say; 0 where excluded.
        excluded: bool (P, K), labels that a photo is not contrasted with; see `contrasts`.
        sources: P names.
        rows: (P,) place of each photo among the views.
        monitor: (M,) logits of the photos that are only looked at.
        development: (D,) logits of the photos that decide which weights are exported; among the views they
            follow those that are only looked at.
        weights: float32 (K,), of the labels.
        outliers: photos that are none of the labels; None without them.
    """

    views: Views
    targets: npt.NDArray[np.int64]
    soft: npt.NDArray[np.float32]
    excluded: npt.NDArray[np.bool_]
    sources: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    monitor: npt.NDArray[np.int64]
    development: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    outliers: Outliers | None = None

    def steps(self, recipe: Recipe) -> int:
        """Return the number of batches of an epoch; a last batch that would not be full is left out."""
        return max(sum(size_of_epoch(self.targets, recipe)) // recipe.train.batch_size, 1)


def batches(
    examples: TrainingData, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield features (B, ...), soft targets (B, K) and excluded labels (B, K).

    Mixed by timm if the recipe says so.

    A function of the recipe's seed and the epoch alone, so that a resumed run draws the same.
    """
    plan = recipe.train
    # Both libraries draw from global generators.
    torch.manual_seed(plan.seed * 100_003 + epoch)
    np.random.seed((plan.seed * 100_003 + epoch) % 2**32)
    chosen = photos_of_epoch(examples.targets, recipe, epoch, examples.sources)
    views = examples.views.training
    # Drawn for every photo anew: with balanced sampling a photo may come several times in an epoch.
    which = np.random.randint(len(views), size=len(chosen))
    for step in range(examples.steps(recipe)):
        part = slice(step * plan.batch_size, (step + 1) * plan.batch_size)
        batch = chosen[part]
        rows = examples.rows[batch]
        features = np.stack([views[v][r] for v, r in zip(which[part], rows, strict=True)])
        x = torch.from_numpy(features).to(device).float()
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        y = torch.from_numpy(examples.soft[batch]).to(device)
        excluded = torch.from_numpy(examples.excluded[batch]).to(device)
        # timm mixes pairs; cutmix needs a place to cut, which pooled features do not have.
        cutmix = plan.cutmix if x.ndim == 4 else 0.0
        if len(batch) % 2 == 0 and (plan.mixup > 0 or cutmix > 0):
            # Given the places of the photos as labels, timm returns who went into whom with which weight,
            # (B, B); so targets that are soft already can be mixed.
            mixup = Mixup(
                mixup_alpha=plan.mixup, cutmix_alpha=cutmix, label_smoothing=0.0, num_classes=len(batch)
            )
            x, mixed = mixup(x, torch.arange(len(batch), device=device))
            y = mixed @ y
            # A mixed photo is contrasted with every label that one of its parts is contrasted with.
            excluded = (mixed > 0).float() @ (~excluded).float() == 0
        yield x, y, excluded
