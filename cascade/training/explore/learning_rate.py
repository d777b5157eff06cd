"""Finds a learning rate for each recipe.

The range test of Smith 2017, Cyclical Learning Rates for Training Neural Networks (arXiv 1506.01186), with
the rate rising exponentially and the smoothed loss of Gugger's "How do you find a good learning rate".
Leaves a table, a plot and figures; no checkpoint and no bundle.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cascade.errors import DataError
from cascade.training.data.batches import batches
from cascade.training.fit.backbone import build
from cascade.training.fit.optimizer import parameter_groups
from cascade.training.fit.training_data import prepare_training_data
from cascade.training.fit.training_step import Stepper
from cascade.training.project import Project
from cascade.training.recipe import Recipe
from cascade.training.training_log import TrainingLog

__all__ = ["RULE", "Study", "study_project", "study_recipe", "suggest"]

RULE: Final = "a tenth of the rate at which the smoothed loss is lowest"

_LOWEST, _HIGHEST = 1e-6, 1.0
#: Weight of the past in the smoothed loss, and how far above its best it may rise before the test ends.
_SMOOTHING, _DIVERGED = 0.9, 4.0
#: The smoothed loss of the first steps is too noisy to judge by.
_BURN_IN = 5


@dataclass(frozen=True, slots=True)
class Study:
    """What one recipe showed; the three sequences have one value per step.

    Attributes:
        name: of the recipe.
        rates: learning rate of the classifier; other blocks follow in the recipe's proportions.
        losses: of the batch, before the step.
        smoothed: exponential mean of the losses, corrected for its start.
        lowest: rate at which the smoothed loss is lowest.
        steepest: rate at which it falls fastest per factor of the rate.
        suggested: see `RULE`.
        configured: what the recipe says now.
        diverged: whether the loss rose so far that the test ended early.
    """

    name: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    steepest: float
    suggested: float
    configured: float
    diverged: bool


def study_project(project: Project, *, steps: int, log: TrainingLog, console: Console) -> tuple[Study, ...]:
    """Study every chosen recipe and write ``lr_study/`` into the working folder.

    Args:
        project: its recipes are studied; views that are computed are those that training uses.
        steps: of each test.
        log: shows the progress.
        console: where the tables go.
    """
    folder = project.work / "lr_study"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for recipe in project.chosen:
        study = study_recipe(recipe, project, steps=steps, log=log)
        found.append(study)
        with (folder / f"{study.name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["learning_rate", "loss", "smoothed_loss"])
            writer.writerows(zip(study.rates, study.losses, study.smoothed, strict=True))
        (folder / f"{study.name}.json").write_text(
            json.dumps({"rule": RULE, **asdict(study)}, indent=1) + "\n", encoding="utf-8"
        )
        _plot(study, folder / f"{study.name}.png")
        console.print(_table(study))
        console.print(
            f"{study.name}: suggested learning rate {study.suggested:.2g}, {RULE}; "
            f"the recipe says {study.configured:.2g}"
        )
    console.print(f"wrote CSV, JSON and plots to {folder}", soft_wrap=True)
    return tuple(found)


def study_recipe(recipe: Recipe, project: Project, *, steps: int, log: TrainingLog) -> Study:
    """Train for some steps with a rising rate; the arguments are those of `study_project`.

    Raises:
        DataError: when the loss is no number within the first steps.
    """
    plan = recipe.train
    photos = len(project.data.split("train"))
    views = max(min(recipe.augment.views, math.ceil(steps * plan.batch_size / photos)), 1)
    short = recipe.replace(augment=recipe.augment.replace(views=views))
    torch.manual_seed(plan.seed)
    network = build(short, project.work)
    examples = prepare_training_data(
        short,
        network,
        project.data,
        project.views,
        teacher_seed=project.teacher_seed,
        device=project.device,
        log=log,
    )
    network.to(project.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(network, plan), weight_decay=plan.weight_decay)
    weights = torch.from_numpy(examples.weights).to(project.device)
    stepper = Stepper(network, None, optimizer, plan, weights)
    network.train()
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    endless = (batch for epoch in count() for batch in batches(examples, short, epoch, project.device))
    for step, (x, soft, excluded) in enumerate(islice(endless, steps)):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (step / max(steps - 1, 1))
        loss, _ = stepper(x, soft, rate / plan.learning_rate, excluded=excluded)
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        level = mean / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(level) or (smoothed and level > _DIVERGED * min(smoothed)):
            diverged = True
            break
        rates.append(rate)
        losses.append(loss)
        smoothed.append(level)
        log.step(recipe.name, "rising rate", step + 1, steps, rate=rate, loss=level)
    if len(rates) <= _BURN_IN + 2:
        raise DataError(f"{recipe.name}: the loss diverged within {len(rates)} steps; is train.loss right?")
    lowest, steepest, suggested = suggest(rates, smoothed)
    return Study(
        recipe.name,
        tuple(rates),
        tuple(losses),
        tuple(smoothed),
        lowest,
        steepest,
        suggested,
        plan.learning_rate,
        diverged,
    )


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float, float]:
    """Return the rate of the lowest loss, that of its steepest fall, and the one to use; see `RULE`.

    Args:
        rates: rising, more than the five that are too noisy to judge by.
        smoothed: loss at each.
    """
    late_rates, late = np.array(rates[_BURN_IN:]), np.array(smoothed[_BURN_IN:])
    lowest = float(late_rates[late.argmin()])
    slope = np.gradient(late, np.log(late_rates))
    return lowest, float(late_rates[slope.argmin()]), lowest / 10


def _table(study: Study) -> Table:
    table = Table(title=f"{study.name}: loss while the learning rate rises")
    for heading in ("learning rate", "loss", "smoothed"):
        table.add_column(heading, justify="right")
    table.add_column("")
    rates = np.array(study.rates)
    marks = {int(np.abs(np.log(rates / study.suggested)).argmin()): "suggested"}
    marks[int(rates.tolist().index(study.steepest))] = "falls fastest"
    marks[int(rates.tolist().index(study.lowest))] = "lowest"
    every = max(len(rates) // 12, 1)
    for i in sorted({*range(0, len(rates), every), *marks}):
        table.add_row(
            f"{rates[i]:.2e}", f"{study.losses[i]:.3f}", f"{study.smoothed[i]:.3f}", marks.get(i, "")
        )
    if study.diverged:
        table.add_row("above", "", "", "diverged")
    return table


def _plot(study: Study, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", xlabel="learning rate", ylabel="loss", title=f"{study.name}: learning rate range test"
    )
    axes.plot(study.rates, study.losses, color="#bbbbbb", linewidth=1, label="each step")
    axes.plot(study.rates, study.smoothed, color="#0072b2", linewidth=2, label="smoothed")
    axes.axvline(study.suggested, color="#d55e00", label=f"suggested, {study.suggested:.2g}")
    axes.axvline(
        study.configured, color="#777777", linestyle="--", label=f"in the recipe, {study.configured:.2g}"
    )
    axes.set_ylim(0, 1.1 * max(study.smoothed))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
