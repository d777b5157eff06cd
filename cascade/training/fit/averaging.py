"""Averages the weights of training steps, and chooses the averaged or the last weights for export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cascade.training.recipe_sections import Schedule

__all__ = ["LAST", "ChosenWeights", "choose_weights", "decay_after", "explain", "warmed_up_average"]

#: Prefix of what was measured with the last weights; what has none was measured with the averaged ones.
LAST: Final = "last_"
#: Averaged and last weights differ clearly when their accuracies are so far apart, and by so many photos.
_CLEARLY: Final = 0.05
_PHOTOS: Final = 3


def decay_after(updates: int, decay: float) -> float:
    """Return the decay of the average after so many updates.

    It is warmed up, ``min(decay, (1 + t) / (10 + t))``, so that a run of few steps is not dragged to its
    start. Source: ``num_updates`` of TensorFlow's ``tf.train.ExponentialMovingAverage``.
    """
    return min(decay, (1 + updates) / (10 + updates))


def warmed_up_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the ``multi_avg_fn`` of `torch.optim.swa_utils.AveragedModel` that `decay_after` describes."""

    def update(averaged: Any, current: Any, updates: torch.Tensor | int) -> None:
        get_ema_multi_avg_fn(decay_after(int(updates), decay))(averaged, current, updates)

    return update


@dataclass(frozen=True, slots=True)
class ChosenWeights:
    """The weights that are exported.

    Attributes:
        epoch: after which they were, counted from 0.
        averaged: whether they are the moving average; otherwise they are the weights of the last step.
        loss: cross-entropy on the development part; None where nothing was held out.
        accuracy: on the same photos.
    """

    epoch: int
    averaged: bool
    loss: float | None = None
    accuracy: float | None = None


def choose_weights(history: Sequence[Mapping[str, float]], plan: Schedule) -> ChosenWeights:
    """Choose by the loss on the development part: of all epochs with early stopping, of the last one without.

    Args:
        history: metrics of every epoch, at least one.
        plan: of the recipe.
    """
    last = len(history) - 1
    if "development_loss" not in history[last]:
        return ChosenWeights(last, averaged=True)
    choices = [
        ChosenWeights(
            epoch,
            prefix == "",
            history[epoch][f"{prefix}development_loss"],
            history[epoch][f"{prefix}development_accuracy"],
        )
        for epoch in range(0 if plan.early_stopping else last, last + 1)
        for prefix in ("", LAST)
        if f"{prefix}development_loss" in history[epoch]
    ]
    return min(choices, key=lambda chosen: chosen.loss or 0.0)


def explain(history: Sequence[Mapping[str, float]], plan: Schedule, held_out: int) -> list[str]:
    """Return lines that say which weights are exported and why, and a warning where the two differ clearly.

    Args:
        history: as for `choose_weights`.
        plan: likewise.
        held_out: photos of the development part.
    """
    chosen = choose_weights(history, plan)
    metrics = history[chosen.epoch]
    if f"{LAST}development_loss" not in metrics:
        return [
            "the averaged weights are exported; there were too few photos to hold some out and compare them "
            "with the last weights"
        ]
    right = {name: metrics[f"{prefix}development_accuracy"] for name, prefix in _NAMES.items()}
    loss = {name: metrics[f"{prefix}development_loss"] for name, prefix in _NAMES.items()}
    used, other = ("averaged", "last") if chosen.averaged else ("last", "averaged")
    lines = [
        f"the {used} weights of epoch {chosen.epoch + 1} are exported: on the {held_out} photos of train "
        f"that were held out, accuracy {right[used]:.1%} and loss {loss[used]:.3f}; "
        f"with the {other} weights {right[other]:.1%} and {loss[other]:.3f}"
    ]
    if 0 < plan.restart_at <= chosen.epoch and plan.restart_share < 1:
        lines.append(
            f"what is exported is {plan.restart_share:.0%} of them and {1 - plan.restart_share:.0%} of the "
            f"averaged weights of epoch {plan.restart_at}"
        )
    apart = right["last"] - right["averaged"]
    if abs(apart) > _CLEARLY and abs(apart) * held_out >= _PHOTOS:
        lines.append(
            "warning: the average has not caught up with the training; train for more epochs, or lower "
            "train.ema_decay"
            if apart > 0
            else "warning: the last weights are far worse than their average, so training was not steady; "
            "lower train.learning_rate"
        )
    return lines


_NAMES: Final = {"averaged": "", "last": LAST}
