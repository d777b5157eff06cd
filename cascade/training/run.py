"""Trains a bundle from labelled photos and recipes, or explores what to train.

    scan -> say how long it takes -> fit every recipe -> assemble the bundle

Every step leaves its result in the working folder; the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cascade.bundle.manifest import MANIFEST
from cascade.ownership import check_bundle_target, empty_scratch
from cascade.training.explore.learning_rate import study_project
from cascade.training.explore.sweep import Sweep, run_sweep
from cascade.training.export.assemble_bundle import BundleOptions, assemble_bundle
from cascade.training.export.packaging import take_place
from cascade.training.fit.network import Fitted, fit
from cascade.training.project import Project, open_project, strangers_in
from cascade.training.time_estimate import announce
from cascade.training.tracking import Tracker
from cascade.training.training_log import TrainingLog, table_console

__all__ = ["explore", "train"]

#: Steps of a study of learning rates.
_STUDY_STEPS: Final = 100


def train(
    data: Path | Sequence[Path],
    recipes: Sequence[Path],
    out: Path,
    *,
    work: Path | None = None,
    only: Sequence[str] = (),
    wandb: str = "disabled",
    device: str | None = None,
    name: str | None = None,
    version: str = "0.1.0",
    max_error: float = 0.15,
    int8: bool = False,
    settings: Mapping[str, Any] | None = None,
    replace: bool = False,
    label_map: Mapping[str, str] | None = None,
    out_of_scope: Path | None = None,
) -> None:
    """Train every recipe and write a bundle.

    Args:
        data: folders of labelled photos, see `cascade.evaluation.dataset.scan`.
        recipes: recipe files or folders of them.
        out: folder of the bundle; replaced if it is one already.
        work: folder for caches and checkpoints; ``OUT.work`` if None.
        only: train just these recipes and write no bundle; for trying things out.
        wandb: mode of `cascade.training.tracking.Tracker`.
        device: ``"cpu"``, ``"cuda"``, ...; None takes a GPU when there is one.
        name: of the bundle; the name of ``out`` if None.
        version: of the bundle.
        max_error: share of wrong answers that the default operating point promises to keep below, or the
            smallest that can be promised if that is more; see `cascade.guarantees.risk_control`.
        int8: also pack an int8 variant of every image stage, see `cascade.training.export.quantize`.
        settings: dotted field -> value, for all recipes; see `cascade.training.overrides.override`.
        replace: whether a bundle at ``out`` may be replaced.
        label_map: name of a folder -> label that it stands for.
        out_of_scope: folder of other photos, see `cascade.training.project.strangers_in`.

    Raises:
        OutputError: at once, when something at ``out`` would be lost; else as `open_project`.
    """
    work = work or out.with_name(out.name + ".work")
    if not only:
        check_bundle_target(out, replace=replace)
        empty_scratch(work / "bundle")
    project = open_project(
        data, recipes, work, only=only, device=device, settings=settings, label_map=label_map
    )
    strangers = None if out_of_scope is None else strangers_in(out_of_scope, work)
    project = dataclasses.replace(project, outliers=() if strangers is None else strangers.split("train"))
    options = BundleOptions(name or out.name, version, max_error, int8, strangers)
    with TrainingLog(tracker=_tracker(project, wandb)) as log:
        project.introduce(log)
        announce(project, log)
        networks = _fit_chosen(project, log)
        if only:
            log.line(f"trained {', '.join(networks)}; run again without --only for a bundle")
            return
        _write_bundle(out, project, networks, options, log)
        log.line(f"wrote {out}; measure it with: cascade evaluate {_first(data)} --bundle {out}")


def _tracker(project: Project, wandb: str) -> Tracker:
    recipes = {recipe.name: recipe.to_dict() for recipe in project.recipes}
    return Tracker(wandb, config={"recipes": recipes, "data": project.data.fingerprint()})


def _fit_chosen(project: Project, log: TrainingLog) -> dict[str, Fitted]:
    """Train the networks of the chosen recipes, or read those that are finished."""
    return {
        recipe.name: fit(
            recipe,
            project.data,
            project.work,
            device=project.device,
            log=log,
            views=project.views,
            teacher_seed=project.teacher_seed,
            outliers=project.outliers,
        )
        for recipe in project.chosen
    }


def _write_bundle(
    out: Path, project: Project, networks: Mapping[str, Fitted], options: BundleOptions, log: TrainingLog
) -> None:
    """Make the bundle in the working folder, move it to ``out`` and log it."""
    scratch = project.work / "bundle"
    scratch.mkdir(parents=True)
    assemble_bundle(scratch, project.recipes, networks, project.data, options=options, log=log)
    take_place(scratch, out)
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    log.tracker.bundle(out, options.name, options.version, manifest["measured"])


def explore(
    data: Path | Sequence[Path],
    recipes: Sequence[Path],
    work: Path,
    *,
    only: Sequence[str],
    sweep: Path | None = None,
    wandb: str = "disabled",
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    label_map: Mapping[str, str] | None = None,
) -> None:
    """Run a sweep, or without one a study of learning rates; both make no bundle and print a table.

    Args:
        data: as for `train`.
        recipes: as for `train`.
        work: folder for caches and results; it may be that of a training, which then shares its views.
        only: recipes to work on.
        sweep: file, see `cascade.training.explore.sweep`.
        wandb: of a sweep, as for `train`.
        device: as for `train`.
        settings: as for `train`.
        label_map: as for `train`.

    Raises:
        DataError, RecipeError, UsageError: as `train` does, and for a wrong sweep file.
    """
    plan = None if sweep is None else Sweep.load(sweep)
    project = open_project(
        data, recipes, work, only=only, device=device, settings=settings, label_map=label_map
    )
    if plan is not None:
        run_sweep(project, plan, wandb=wandb, console=table_console())
        return
    with TrainingLog() as log:
        project.introduce(log)
        study_project(project, steps=_STUDY_STEPS, log=log, console=table_console())


def _first(data: Path | Sequence[Path]) -> Path:
    return data if isinstance(data, Path) else data[0]
