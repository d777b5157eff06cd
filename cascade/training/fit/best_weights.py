"""Keeps the best weights of a training while it runs and takes the chosen ones at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.training.fit.averaging import choose_weights
from cascade.training.recipe_sections import Schedule

__all__ = ["keep_if_best", "take_chosen"]


def keep_if_best(
    model: nn.Module, ema: AveragedModel, history: Sequence[Mapping[str, float]], plan: Schedule, best: Path
) -> None:
    """With early stopping, save the weights of the epoch that just ended if they are the best so far."""
    chosen = choose_weights(history, plan)
    if plan.early_stopping and chosen.epoch == len(history) - 1:
        best.parent.mkdir(parents=True, exist_ok=True)
        torch.save((ema.module if chosen.averaged else model).state_dict(), best)


def take_chosen(
    model: nn.Module, ema: AveragedModel, history: Sequence[Mapping[str, float]], plan: Schedule, best: Path
) -> None:
    """Put the weights that are exported into the model."""
    if plan.early_stopping:
        model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
    elif choose_weights(history, plan).averaged:
        model.load_state_dict(ema.module.state_dict())
