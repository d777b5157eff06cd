"""Keeps the best weights of a training while it runs and takes the chosen ones at its end."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.errors import RecipeError
from cascade.training.fit.averaging import choose_weights
from cascade.training.recipe_sections import Schedule

__all__ = ["keep_before_restart", "keep_if_best", "mix_with_those_before", "take_chosen", "teacher_before"]


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


def keep_before_restart(ema: AveragedModel, epochs: int, plan: Schedule, path: Path) -> None:
    """Save the averaged weights if the rate rises next and they are needed at the end."""
    needed = plan.restart_share < 1 or plan.restart_teacher > 0
    if needed and epochs == plan.restart_at:
        torch.save(ema.module.state_dict(), path)


def teacher_before(model: nn.Module, plan: Schedule, path: Path) -> nn.Module | None:
    """Return a frozen copy of the model with the weights before the restart; None where they do not teach.

    It smooths what the labels say (born-again networks, Furlanello et al. 2018, arXiv 1805.04770).

    Args:
        model: of the same modules.
        plan: of the recipe.
        path: what `keep_before_restart` saved.

    Raises:
        RecipeError: when they are not there.
    """
    if not plan.restart_teacher:
        return None
    teacher = copy.deepcopy(model)
    teacher.load_state_dict(_before(path, "restart_teacher"))
    return teacher.eval().requires_grad_(False)


def mix_with_those_before(model: nn.Module, epoch: int, plan: Schedule, path: Path) -> None:
    """Average the model, in place, with the weights before the restart.

    The ends of both cycles lie in one basin, and between them is what neither has alone (stochastic weight
    averaging, Izmailov et al. 2018, arXiv 1803.05407; WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
    Nothing changes where the weights come from before the restart.

    Args:
        model: holds the weights after the epoch.
        epoch: counted from 0.
        plan: of the recipe.
        path: what `keep_before_restart` saved.

    Raises:
        RecipeError: when they are not there.
    """
    if not 0 < plan.restart_at <= epoch or plan.restart_share == 1:
        return
    before = _before(path, "restart_share")
    share = plan.restart_share
    mixed = {
        name: share * value + (1 - share) * before[name] if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(mixed)


def _before(path: Path, option: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise RecipeError(f"train.{option} needs {path}, which is gone; remove {path.parent} to train anew")
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
