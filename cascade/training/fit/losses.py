"""Finds the loss that a recipe names.

Every loss takes logits (B, K), targets (B, K) whose rows sum to one (smoothed, mixed or a teacher's), and
weights (K,) of the labels, and returns one number. A loss of your own is named by its dotted path,
``my_package.my_module.my_loss``, and is called with these three.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import torch

from cascade.errors import RecipeError
from cascade.training.recipe_sections import Schedule

__all__ = ["Loss", "cross_entropy", "focal", "make_loss"]

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with soft targets, averaged over the batch."""
    return torch.nn.functional.cross_entropy(logits, targets, weight=weights)


def focal(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, gamma: float
) -> torch.Tensor:
    """Focal loss with soft targets: cross-entropy whose terms fade as (1 - p)^gamma.

    Lin et al. 2017, Focal Loss for Dense Object Detection, equation 4. With gamma 0 it is `cross_entropy`.
    """
    log_p = torch.log_softmax(logits, dim=1)
    # Kept above zero: below gamma 1, the slope at a probability of exactly one is infinite.
    fading = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).eps).pow(gamma)
    terms = weights * targets * fading * log_p
    return -terms.sum(1).mean()


def make_loss(plan: Schedule) -> Loss:
    """Return the loss of a recipe.

    Raises:
        RecipeError: when the name is neither built in nor something that can be imported and called.
    """
    if plan.loss == "cross_entropy":
        return cross_entropy
    if plan.loss == "focal":
        return partial(focal, gamma=plan.focal_gamma)
    module, _, name = plan.loss.rpartition(".")
    try:
        loss: Loss = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise RecipeError(f"train.loss {plan.loss!r} cannot be imported: {error}") from error
    if not callable(loss):
        raise RecipeError(
            f"train.loss is {plan.loss!r}; use 'cross_entropy', 'focal' or the dotted name of a function"
        )
    return loss
