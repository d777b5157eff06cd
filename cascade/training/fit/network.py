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
from cascade.training.data.batches import Lesson, batches
from cascade.training.fit.averaging import LAST, choose_weights, explain, warmed_up_average
from cascade.training.fit.backbone import Network, build, save_backbone
from cascade.training.fit.best_weights import keep_if_best, take_chosen
from cascade.training.fit.checkpoint import Checkpoint
from cascade.training.fit.optimizer import parameter_groups, rate_factor
from cascade.training.fit.training_data import looked_at, prepare_lesson
from cascade.training.fit.training_step import Stepper
from cascade.training.progress import Report
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule

__all__ = ["Fitted", "fit", "is_finished"]


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
    report: Report,
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
        report: is told about progress and metrics.
        views: folder of cached features; ``work / "views"`` if None.
        teacher_seed: of the folds of the recipe's teacher; the recipe's own seed if None.
        outliers: photos that are none of the labels, for a recipe that learns from them.
    """
    plan = recipe.train
    torch.manual_seed(plan.seed)
    network = build(recipe, work)
    home = work / recipe.name
    checkpoint, best = Checkpoint(home / "checkpoint.pt", recipe, data), home / "best.pt"
    model = nn.ModuleDict({"trained": network.trained, "head": network.head})
    ema = AveragedModel(model, multi_avg_fn=warmed_up_average(plan.ema_decay))
    optimizer = torch.optim.AdamW(parameter_groups(network, plan), weight_decay=plan.weight_decay)
    history: list[dict[str, float]] = checkpoint.restore(model, ema, optimizer)
    lesson: Lesson | None = None
    if not is_finished(history, plan):
        folder = views or work / "views"
        seed = plan.seed if teacher_seed is None else teacher_seed
        lesson = prepare_lesson(
            recipe, network, data, folder, teacher_seed=seed, device=device, report=report, outliers=outliers
        )
        stepper = _stepper_on(device, network, ema, optimizer, plan, lesson)
        while not is_finished(history, plan):
            epoch = len(history)
            metrics = _epoch_and_look(stepper, ema, lesson, recipe, epoch, device, report)
            history.append(metrics)
            keep_if_best(model, ema, history, plan, best)
            checkpoint.save(model, ema, optimizer, history)
            report.epoch(recipe.name, epoch + 1, plan.epochs, metrics)
    take_chosen(model, ema, history, plan, best)
    _explain(history, recipe, data, report)
    fitted = Fitted(network.cpu().eval(), tuple(history))
    save_backbone(fitted.network, recipe, work)
    if lesson is not None and report.tracker.on:
        _track_answers(model, lesson, recipe, data, report)
    return fitted


def _stepper_on(
    device: torch.device,
    network: Network,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    plan: Schedule,
    lesson: Lesson,
) -> Stepper:
    """Move everything that learns to the device and return what makes a step."""
    network.to(device).to(memory_format=torch.channels_last)
    ema.to(device)
    # What was restored before the network moved follows it.
    optimizer.load_state_dict(optimizer.state_dict())
    return Stepper(network, ema, optimizer, plan, torch.from_numpy(lesson.weights).to(device))


def _explain(history: Sequence[Mapping[str, float]], recipe: Recipe, data: Dataset, report: Report) -> None:
    """Say which weights are exported and why."""
    held_out = len(looked_at(recipe, data)) - len(data.split("calibration"))
    for line in explain(history, recipe.train, held_out):
        report.line(f"{recipe.name}: {line}")


def _track_answers(model: nn.Module, lesson: Lesson, recipe: Recipe, data: Dataset, report: Report) -> None:
    """Log what the trained network says of the photos of `calibration`."""
    monitor = data.split("calibration")
    logits = _logits(model.cpu().eval(), lesson.views.monitor[: len(monitor)], torch.device("cpu"))
    names = [*recipe.labels, *([NOT_MINE] if recipe.kind == "expert" else [])]
    report.tracker.answers(recipe.name, names, monitor, lesson.monitor, logits.softmax(1).numpy())


def is_finished(history: Sequence[Mapping[str, float]], plan: Schedule) -> bool:
    """Whether a run with this history has nothing left to do."""
    if plan.early_stopping and history:
        since_best = len(history) - 1 - choose_weights(history, plan).epoch
        if since_best >= plan.early_stopping:
            return True
    return len(history) >= plan.epochs


def _epoch_and_look(
    stepper: Stepper,
    ema: AveragedModel,
    lesson: Lesson,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
    report: Report,
) -> dict[str, float]:
    """Train one epoch and measure it; the metrics say how many seconds both took."""
    started = time.perf_counter()
    metrics = _epoch(stepper, lesson, recipe, epoch, device, report)
    metrics |= _look_at(ema, stepper, lesson, recipe, device)
    metrics["seconds"] = round(time.perf_counter() - started, 1)
    return metrics


def _epoch(
    stepper: Stepper, lesson: Lesson, recipe: Recipe, epoch: int, device: torch.device, report: Report
) -> dict[str, float]:
    plan = recipe.train
    losses, correct, seen = 0.0, 0, 0
    stepper.network.train()
    steps = lesson.steps(recipe)
    others = repeat(None) if lesson.outliers is None else lesson.outliers.batches(recipe, epoch, device)
    drawn = zip(batches(lesson, recipe, epoch, device), others, strict=False)  # the second never ends
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
        report.step(recipe.name, what, step + 1, steps, loss=losses / (step + 1), accuracy=correct / seen)
    return {"loss": losses / steps, "accuracy": correct / seen}


@torch.inference_mode()
def _look_at(
    ema: AveragedModel, stepper: Stepper, lesson: Lesson, recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """Measure the averaged weights on photos not learned from, and the last ones on those that decide."""
    ema.eval()
    logits = _logits(ema.module, lesson.views.monitor, device)
    count = len(lesson.monitor)
    metrics = _metrics(logits[:count], torch.from_numpy(lesson.monitor), recipe, "monitor")
    if len(lesson.development):
        judges = torch.from_numpy(lesson.development)
        stepper.network.eval()
        last = _logits(stepper.model, lesson.views.monitor[count:], device)
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
