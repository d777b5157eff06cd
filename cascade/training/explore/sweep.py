"""Trains one recipe with many combinations of its fields and compares them.

A sweep file is TOML:

    method = "grid"        # every combination; or "random"
    runs = 20              # of "random"
    seed = 0               # of "random"
    [parameters]           # fields of the recipe
    train.learning_rate = [3e-4, 1e-3]
    train.mixup = { min = 0.0, max = 0.4 }               # "random" only
    train.weight_decay = { min = 1e-3, max = 0.1, log = true }

Runs are judged on a part of `train` that none of them learns from, the same for all; `calibration` and
`test` decide nothing. The same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.table import Table
from scipy.stats import loguniform, randint, uniform
from sklearn.model_selection import ParameterGrid, ParameterSampler

from cascade.errors import DataError, RecipeError, UsageError
from cascade.training.fit.averaging import choose_weights
from cascade.training.fit.network import fit
from cascade.training.overrides import override
from cascade.training.project import Project
from cascade.training.recipe import Recipe, read_toml
from cascade.training.tracking import Tracker
from cascade.training.training_log import TrainingLog

__all__ = ["Outcome", "Sweep", "run_sweep"]

#: Fields that decide which photos judge; runs that differ in them could not be compared.
_FIXED: Final = ("train.seed", "train.development", "train.early_stopping")


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried.

    Attributes:
        name: of the sweep; also the group of its Weights & Biases runs.
        method: ``"grid"`` or ``"random"``.
        parameters: dotted field -> values, or ``{"min": .., "max": .., "log": ..}``.
        runs: combinations that "random" draws.
        seed: of "random".
    """

    name: str
    method: str
    parameters: Mapping[str, Any]
    runs: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("grid", "random"):
            raise RecipeError(f"method is {self.method!r}; use 'grid' or 'random'")
        if not self.parameters:
            raise RecipeError("[parameters] names no field of a recipe")
        if self.method == "random" and self.runs < 1:
            raise RecipeError(f"runs is {self.runs}; method 'random' needs at least 1")
        for key, values in self.parameters.items():
            if key in _FIXED:
                raise RecipeError(f"{key} decides which photos judge the runs; set it in the recipe instead")
            if isinstance(values, list):
                if not values:
                    raise RecipeError(f"{key} has no values")
            elif not (isinstance(values, dict) and {"min", "max"} <= set(values) <= {"min", "max", "log"}):
                raise RecipeError(f"{key} is {values!r}; give a list of values, or {{min = .., max = ..}}")
            elif self.method == "grid":
                raise RecipeError(f"{key} is a range; a grid needs a list of values")
            elif not values["min"] < values["max"] or (values.get("log") and values["min"] <= 0):
                raise RecipeError(f"{key}: min must be below max, and above 0 if log is true")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a sweep file; raises `RecipeError` naming the file and the field."""
        data = read_toml(path)
        try:
            parameters = _flat(data.pop("parameters", {}))
            return cls(name=path.stem, parameters=parameters, **({"method": "grid"} | data))
        except (RecipeError, TypeError) as error:
            raise RecipeError(f"{path}: {error}") from None

    def combinations(self) -> list[dict[str, Any]]:
        """Return the settings of every run, always in the same order."""
        if self.method == "grid":
            return list(ParameterGrid(dict(self.parameters)))
        ranges = {key: _distribution(values) for key, values in self.parameters.items()}
        size = self.runs
        if all(isinstance(values, list) for values in ranges.values()):
            size = min(size, len(ParameterGrid(ranges)))  # of a grid, no point is drawn twice
        drawn = ParameterSampler(ranges, n_iter=size, random_state=self.seed)
        return [{key: _plain(value) for key, value in each.items()} for each in drawn]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended, at its best epoch.

    Attributes:
        settings: dotted field -> value.
        development_loss: cross-entropy on the photos that judge.
        development_accuracy: on the same photos.
        epoch: of the lowest loss, counted from one.
        epochs: that were run.
        folder: where the run lives, below that of the sweep.
    """

    settings: dict[str, Any]
    development_loss: float
    development_accuracy: float
    epoch: int
    epochs: int
    folder: str


def run_sweep(project: Project, sweep: Sweep, *, wandb: str, console: Console) -> tuple[Outcome, ...]:
    """Train every combination, write ``sweep.json`` after each, and print a table, the best first.

    Args:
        project: its one chosen recipe is varied.
        sweep: what is tried.
        wandb: mode of `cascade.training.tracking.Tracker`; each run is a run there, in one group.
        console: where the table goes.

    Raises:
        UsageError: when not exactly one recipe is chosen.
        RecipeError: when a combination is no valid recipe; nothing has been trained then.
        DataError: when there are too few photos to set some aside.
    """
    if len(project.chosen) != 1:
        raise UsageError("--sweep varies one recipe; name it with --only")
    base = project.chosen[0]
    home = project.work / "sweeps" / f"{sweep.name}_{base.name}"
    planned = [(settings, _judged(override(base, settings))) for settings in sweep.combinations()]
    outcomes = []
    for number, (settings, recipe) in enumerate(planned, 1):
        folder = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        document = {"recipe": recipe.to_dict(), "settings": settings}
        name = ", ".join(f"{key}={value}" for key, value in settings.items())
        tracker = Tracker(wandb, config=document, group=f"{sweep.name}_{base.name}", name=name)
        with TrainingLog(tracker=tracker) as log:
            log.line(f"run {number} of {len(planned)}: {name}")
            fitted = fit(
                recipe,
                project.data,
                home / folder,
                device=project.device,
                log=log,
                views=project.views,
                teacher_seed=project.teacher_seed,
            )
        best = choose_weights(fitted.history, recipe.train)
        if best.loss is None or best.accuracy is None:
            raise DataError(f"{recipe.name}: too few photos in train to set some aside that judge the runs")
        outcomes.append(
            Outcome(
                settings,
                best.loss,
                best.accuracy,
                best.epoch + 1,
                len(fitted.history),
                folder,
            )
        )
        _write(home / "sweep.json", base, outcomes, len(planned))
    ranked = tuple(sorted(outcomes, key=lambda outcome: outcome.development_loss))
    console.print(_table(base, ranked))
    console.print(f"wrote {home / 'sweep.json'}", soft_wrap=True)
    return ranked


def _judged(recipe: Recipe) -> Recipe:
    """Set development photos aside also where the recipe does not stop early; then it never does."""
    if recipe.train.early_stopping:
        return recipe
    return override(recipe, {"train.early_stopping": recipe.train.epochs})


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train": {"mixup": [..]}}`` -> ``{"train.mixup": [..]}``; a range is no table."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict) and not {"min", "max"} & set(value):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _distribution(values: Any) -> Any:
    if isinstance(values, list):
        return values
    low, high = values["min"], values["max"]
    if values.get("log"):
        return loguniform(low, high)
    if isinstance(low, int) and isinstance(high, int):
        return randint(low, high + 1)
    return uniform(low, high - low)


def _plain(value: Any) -> Any:
    """Return a number of numpy as one of Python, which JSON and TOML know."""
    return value.item() if hasattr(value, "item") else value


def _write(path: Path, base: Recipe, outcomes: Sequence[Outcome], planned: int) -> None:
    ranked = sorted(outcomes, key=lambda outcome: outcome.development_loss)
    document = {"recipe": base.name, "planned": planned, "runs": [asdict(outcome) for outcome in ranked]}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _table(base: Recipe, ranked: Sequence[Outcome]) -> Table:
    table = Table(title=f"{base.name}: {len(ranked)} runs, judged on photos of train that none learned from")
    for key in ranked[0].settings:
        table.add_column(key, justify="right")
    for heading in ("development loss", "accuracy", "best epoch"):
        table.add_column(heading, justify="right")
    for outcome in ranked:
        values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in outcome.settings.values())
        table.add_row(
            *values,
            f"{outcome.development_loss:.4f}",
            f"{outcome.development_accuracy:.1%}",
            f"{outcome.epoch} of {outcome.epochs}",
        )
    return table
