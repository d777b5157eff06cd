"""Sets the learning rate of every part of a network and of every step."""

from __future__ import annotations

import math
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn

from cascade.training.fit.backbone import Network
from cascade.training.recipe_sections import Schedule

__all__ = ["parameter_groups", "rate_factor"]


def parameter_groups(network: Network, plan: Schedule) -> list[dict[str, Any]]:
    """Return groups whose key ``peak`` is their learning rate at its highest.

    The classifier learns at the full rate. Pretrained blocks learn `backbone_factor` times as fast, and each
    block `layer_decay` times as fast as the one after it. Biases and norms do not decay.
    """
    groups = []
    rate = plan.learning_rate * plan.backbone_factor
    if isinstance(network.trained, nn.Sequential):
        blocks = [b for b in network.trained if any(p.requires_grad for p in b.parameters())]
        for depth, block in enumerate(reversed(blocks)):
            groups += _split(block, rate * plan.layer_decay**depth)
    elif plan.layer_decay < 1:
        # A network that is trained in one piece: timm knows its layers.
        for group in param_groups_layer_decay(
            network.trained, plan.weight_decay, layer_decay=plan.layer_decay
        ):
            peak = rate * group["lr_scale"]
            decay = group["weight_decay"]
            groups.append({"params": group["params"], "lr": peak, "peak": peak, "weight_decay": decay})
    else:
        groups += _split(network.trained, rate)
    return [*reversed(groups), *_split(network.head, plan.learning_rate)]


def _split(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    matrices = {"params": [p for p in parameters if p.ndim > 1], "lr": rate, "peak": rate}
    vectors = {"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "peak": rate}
    return [group for group in (matrices, vectors | {"weight_decay": 0.0}) if group["params"]]


def rate_factor(step: int, steps: int, plan: Schedule) -> float:
    """Return the share of the peak rate in a step: linear warm-up, then cosine down to zero.

    With `restart_at` the same comes once more, to `restart_factor` of the peak (warm restart,
    Loshchilov and Hutter 2017, SGDR, arXiv 1608.03983).

    Args:
        step: of the whole run, counted from 0.
        steps: of an epoch.
        plan: of the recipe.
    """
    turn = plan.restart_at * steps
    if not turn:
        return _cycle(step, plan.warmup_epochs * steps, plan.epochs * steps)
    if step < turn:
        return _cycle(step, plan.warmup_epochs * steps, turn)
    rest = plan.epochs * steps - turn
    return plan.restart_factor * _cycle(step - turn, plan.warmup_epochs * steps, rest)


def _cycle(step: int, warmup: float, total: int) -> float:
    """Linear warm-up, then cosine down to zero; a factor in 0..1."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
