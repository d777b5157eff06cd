"""Trains the network of one recipe.

A run that was stopped goes on after the last finished epoch and ends with the same weights as one that was
not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.evaluation.dataset import Dataset, Photo
from cascade.labels import NOT_MINE
from cascade.training.data.batches import TrainingData, batches
from cascade.training.fit.averaging import LAST, choose_weights, explain, warmed_up_average
from cascade.training.fit.backbone import Network, build, save_backbone
from cascade.training.fit.best_weights import (
    keep_before_restart,
    keep_if_best,
    mix_with_those_before,
    take_chosen,
    teacher_before,
)
from cascade.training.fit.checkpoint import Checkpoint
from cascade.training.fit.optimizer import parameter_groups, rate_factor
from cascade.training.fit.training_data import looked_at, prepare_training_data
from cascade.training.fit.training_step import Stepper
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule
from cascade.training.training_log import TrainingLog

__all__ = ["Fitted", "fit", "is_finished", "validate"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network and its training curve: one dictionary of metrics per epoch."""

    network: Network
    history: tuple[dict[str, float], ...]


def fit(
    recipe: Recipe,
    data: Dataset,
    work: Path,
    *,
    device: torch.device,
    log: TrainingLog,
    views: Path | None = None,
    teacher_seed: int | None = None,
    outliers: Sequence[Photo] = (),
) -> Fitted:
    """Train the network of a recipe on the split `train`, or go on where an earlier run stopped.

    The split `calibration` is looked at after every epoch and shown, but decides nothing. A part of
    `train` that is not learned from decides whether the averaged or the last weights are returned, with early
    stopping also of which epoch, see `cascade.training.fit.averaging`.

    Args:
        recipe: what to train.
        data: labelled photos, of all labels that the bundle knows.
        work: folder for the checkpoints.
        device: where to train.
        log: shows progress and metrics.
        views: folder of cached features; ``work / "views"`` if None.
        teacher_seed: of the folds of the recipe's teacher; the recipe's own seed if None.
        outliers: photos that are none of the labels, for a recipe that learns from them.
    """
    plan = recipe.train
    torch.manual_seed(plan.seed)
    network = build(recipe, work)
    home = work / recipe.name
    checkpoint = Checkpoint(home / "checkpoint.pt", recipe, data, outliers)
    best, before = home / "best.pt", home / "before_restart.pt"
    model = nn.ModuleDict({"trained": network.trained, "head": network.head})
    ema = AveragedModel(model, multi_avg_fn=warmed_up_average(plan.ema_decay))
    optimizer = torch.optim.AdamW(parameter_groups(network, plan), weight_decay=plan.weight_decay)
    history: list[dict[str, float]] = checkpoint.restore(model, ema, optimizer)
    examples: TrainingData | None = None
    if not is_finished(history, plan):
        seed = plan.seed if teacher_seed is None else teacher_seed
        where = views or work / "views"
        examples = prepare_training_data(
            recipe, network, data, where, teacher_seed=seed, device=device, log=log, outliers=outliers
        )
        stepper = _stepper_on(device, network, ema, optimizer, plan, examples)
        while not is_finished(history, plan):
            _restart(stepper, len(history), before)
            history.append(_epoch_and_validate(stepper, ema, examples, recipe, len(history), device, log))
            keep_if_best(model, ema, history, plan, best)
            checkpoint.save(model, ema, optimizer, history)
            keep_before_restart(ema, len(history), plan, before)
            log.epoch(recipe.name, len(history), plan.epochs, history[-1])
    take_chosen(model, ema, history, plan, best)
    _explain(history, recipe, data, log)
    # Experts start from the end of the second cycle, not from the average.
    save_backbone(network.cpu().eval(), recipe, work)
    mix_with_those_before(model, choose_weights(history, plan).epoch, plan, before)
    if examples is not None and log.tracker.on:
        _track(model, examples, recipe, data, log)
    return Fitted(network, tuple(history))


def _stepper_on(
    device: torch.device,
    network: Network,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    plan: Schedule,
    examples: TrainingData,
) -> Stepper:
    """Move everything that learns to the device and return what makes a step."""
    network.to(device).to(memory_format=torch.channels_last)
    ema.to(device)
    # What was restored before the network moved follows it.
    optimizer.load_state_dict(optimizer.state_dict())
    return Stepper(network, ema, optimizer, plan, torch.from_numpy(examples.weights).to(device))


def _restart(stepper: Stepper, epoch: int, before: Path) -> None:
    """Tell the stepper once, in the first epoch of a run after the restart, to learn as the recipe says."""
    if 0 < stepper.plan.restart_at <= epoch and not stepper.restarted:
        stepper.restart(teacher_before(stepper.model, stepper.plan, before))


def _explain(history: Sequence[Mapping[str, float]], recipe: Recipe, data: Dataset, log: TrainingLog) -> None:
    """Say which weights are exported and why."""
    held_out = len(looked_at(recipe, data)) - len(data.split("calibration"))
    for line in explain(history, recipe.train, held_out):
        log.line(f"{recipe.name}: {line}")


def _track(model: nn.Module, examples: TrainingData, recipe: Recipe, data: Dataset, log: TrainingLog) -> None:
    """Log what the trained network says of the photos of `calibration`."""
    monitor = data.split("calibration")
    logits = _logits(model.cpu().eval(), examples.views.monitor[: len(monitor)], torch.device("cpu"))
    names = [*recipe.labels, *([NOT_MINE] if recipe.kind == "expert" else [])]
    log.tracker.answers(recipe.name, names, monitor, examples.monitor, logits.softmax(1).numpy())


def is_finished(history: Sequence[Mapping[str, float]], plan: Schedule) -> bool:
    """Whether a run with this history has nothing left to do."""
    if plan.early_stopping and history:
        since_best = len(history) - 1 - choose_weights(history, plan).epoch
        if since_best >= plan.early_stopping:
            return True
    return len(history) >= plan.epochs


def _epoch_and_validate(
    stepper: Stepper,
    ema: AveragedModel,
    examples: TrainingData,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
    log: TrainingLog,
) -> dict[str, float]:
    """Train one epoch and measure it; the metrics say how many seconds both took."""
    started = time.perf_counter()
    metrics = _epoch(stepper, examples, recipe, epoch, device, log)
    metrics |= validate(ema, stepper, examples, recipe, device)
    metrics["seconds"] = round(time.perf_counter() - started, 1)
    return metrics


def _epoch(
    stepper: Stepper,
    examples: TrainingData,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
    log: TrainingLog,
) -> dict[str, float]:
    plan = recipe.train
    losses, correct, seen = 0.0, 0, 0
    stepper.network.train()
    steps = examples.steps(recipe)
    others = repeat(None) if examples.outliers is None else examples.outliers.batches(recipe, epoch, device)
    drawn = zip(batches(examples, recipe, epoch, device), others, strict=False)  # the second never ends
    for step, ((x, soft, excluded), outliers) in enumerate(drawn):
        taken = epoch * steps + step
        factor = rate_factor(taken, steps, plan)
        head_only = taken < plan.head_epochs * steps
        loss, logits = stepper(x, soft, factor, excluded=excluded, head_only=head_only, outliers=outliers)
        losses += loss
        # Of a mixed photo, the label that it is mostly made of counts.
        correct += int((logits.argmax(1) == soft.argmax(1)).sum())
        seen += len(x)
        what = f"epoch {epoch + 1} of {plan.epochs}"
        log.step(recipe.name, what, step + 1, steps, loss=losses / (step + 1), accuracy=correct / seen)
    return {"loss": losses / steps, "accuracy": correct / seen}


@torch.inference_mode()
def validate(
    ema: AveragedModel, stepper: Stepper, examples: TrainingData, recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Measure the averaged weights on photos not learned from, and the last ones on those that decide."""
    ema.eval()
    logits = _logits(ema.module, examples.views.monitor, device)
    count = len(examples.monitor)
    metrics = _metrics(logits[:count], torch.from_numpy(examples.monitor), recipe, "monitor")
    if len(examples.development):
        judges = torch.from_numpy(examples.development)
        stepper.network.eval()
        last = _logits(stepper.model, examples.views.monitor[count:], device)
        metrics |= _metrics(logits[count:], judges, recipe, "development")
        metrics |= _metrics(last, judges, recipe, f"{LAST}development")
    return metrics


@torch.inference_mode()
def _logits(model: Any, features: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return logits (N, K) of cached features (N, ...)."""
    return torch.cat(
        [
            model["head"](
                model["trained"](torch.from_numpy(np.array(features[i : i + 128])).to(device).float())
            ).cpu()
            for i in range(0, len(features), 128)
        ]
    )


def _metrics(logits: torch.Tensor, targets: torch.Tensor, recipe: Recipe, name: str) -> dict[str, float]:
    metrics = {
        f"{name}_loss": float(nn.functional.cross_entropy(logits, targets)),
        f"{name}_accuracy": float((logits.argmax(1) == targets).float().mean()),
    }
    if recipe.kind == "expert":
        mine = targets < len(recipe.labels)
        if mine.any():  # few photos may hold none of its labels
            among = logits[:, :-1].argmax(1) == targets
            metrics[f"{name}_accuracy_own"] = float(among[mine].float().mean())
    return metrics
