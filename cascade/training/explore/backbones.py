"""Compares backbones by their frozen features.

Frozen features of every photo, not augmented, and a logistic regression, fitted on `train` and measured on
`calibration`; `test` is not looked at. It says which features are worth fine-tuning, not what fine-tuning
reaches.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import onnx
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.data import resolve_model_data_config

from cascade.arrays import Float32s
from cascade.errors import DataError, UsageError
from cascade.evaluation.dataset import Dataset, Photo, scan
from cascade.evaluation.metrics import wilson_interval
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.session import GraphSession
from cascade.ownership import GENERATOR, check_file_target
from cascade.training.data.cached_views import cache_plain
from cascade.training.explore.backbone_figures import Accuracy, Compared, plot, table
from cascade.training.export.assemble_bundle import floating_point_operations
from cascade.training.export.image_graph import export_stage
from cascade.training.fit.backbone import Network, build, load_backbone
from cascade.training.project import choose_device, readable
from cascade.training.recipe import Recipe, load_recipes
from cascade.training.recipe_sections import Backbone, Schedule
from cascade.training.training_log import TrainingLog

__all__ = ["Candidate", "compare", "probe_accuracy"]

#: Inverse of the L2 penalty of the logistic regression, for features of variance one.
_STRENGTH: Final = 0.003
#: Photos that each network is timed on; in turns, so that what else the machine does hits all alike.
_ROUNDS: Final = 31
#: The column when there are no recipes.
_ALL: Final = "all labels"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backbone as the command line names it: ``NAME[=WEIGHTS][@PIXELS]``.

    Attributes:
        name: of the timm model.
        weights: as in a recipe, or None for the recipe's own if it has the same name, else ``timm``.
        side: pixels of the square input, or None for the model's own.
    """

    name: str
    weights: str | None = None
    side: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one name; raises `UsageError`."""
        rest, at, side = text.strip().rpartition("@")
        if not at or not side.isdigit():
            rest, side = text.strip(), ""
        name, _, weights = rest.partition("=")
        if not name:
            raise UsageError(f"--backbones {text!r}: write NAME, NAME=WEIGHTS or NAME=WEIGHTS@PIXELS")
        return cls(name, weights or None, int(side) if side else None)


def compare(
    data: Path,
    backbones: Sequence[Candidate],
    out: Path,
    *,
    recipes: Sequence[Path] = (),
    device: str | None = None,
    console: Console,
) -> tuple[Compared, ...]:
    """Compare backbones and write ``compare.json`` and ``compare.png``.

    Args:
        data: labelled photos, see `cascade.evaluation.dataset.scan`.
        backbones: what to compare; the first is the unit of cost.
        out: folder for the results and, in ``views``, the features: the same command goes on where it was.
        recipes: one column each; without any, one column with all labels of the photos.
        device: where features are computed.
        console: where the table goes.

    Raises:
        DataError: when a split that is needed has no photos.
        RecipeError: when a backbone or a recipe is wrong.
        UsageError: when there is nothing to compare, or the device does not exist.
    """
    if not backbones:
        raise UsageError("--backbones names none")
    for file in ("compare.json", "compare.png") if out.exists() else ():
        check_file_target(out / file, "--out")
    stages = load_recipes(recipes) if recipes else ()
    where = choose_device(device)
    found = readable(scan(data, stages[0].labels if stages else None), out)
    for split in ("train", "calibration"):
        if not found.split(split):
            raise DataError(f"{data}: there are no photos in the split {split!r}")
    columns = {recipe.name: tuple(recipe.labels) for recipe in stages} or {_ALL: found.labels}
    base = stages[0] if stages else _plain_recipe(found.labels)
    with TrainingLog() as log:
        examined = [_examine(each, base, columns, found, out, where, log) for each in backbones]
    times = _milliseconds([(session, spec) for _, session, spec in examined])
    unit = examined[0][0].cost
    rows = [
        replace(row, cost=round(row.cost / unit, 4), ms=round(ms, 3))
        for (row, _, _), ms in zip(examined, times, strict=True)
    ]
    document = {
        "generator": GENERATOR,
        "split": "calibration",
        "strength": _STRENGTH,
        "backbones": [asdict(row) for row in rows],
    }
    (out / "compare.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    plot(rows, out / "compare.png")
    console.print(table(rows))
    console.print(f"wrote {out / 'compare.json'} and {out / 'compare.png'}", soft_wrap=True)
    return tuple(rows)


def _plain_recipe(labels: Sequence[str]) -> Recipe:
    # Reduced while decoding no further than recipes do.
    spec = InputSpec(224, 224, reducing_gap=1.5)
    return Recipe(name="general", kind="general", labels=dict.fromkeys(labels, "any"), input=spec)


def _examine(
    candidate: Candidate,
    base: Recipe,
    columns: Mapping[str, Sequence[str]],
    data: Dataset,
    out: Path,
    device: torch.device,
    log: TrainingLog,
) -> tuple[Compared, GraphSession, InputSpec]:
    """Measure everything but the time; the cost is still in floating-point operations."""
    own = base.backbone.weights if candidate.name == base.backbone.name else "timm"
    backbone = Backbone(candidate.name, candidate.weights or own)
    side = candidate.side or int(resolve_model_data_config(load_backbone(backbone))["input_size"][-1])
    spec = base.input.replace(width=side, height=side)
    recipe = base.replace(backbone=backbone, input=spec, train=Schedule(train_from="head"))
    network = build(recipe)
    cost = floating_point_operations(network, spec)
    model = export_stage(network, spec, outputs=["logits"], metadata={})
    folder = out / "graphs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{candidate.name.replace('/', '_')}_{side}.onnx"
    onnx.save(model, path)
    train, held_out = data.split("train"), data.split("calibration")
    features = cache_plain(
        recipe,
        network.frozen,
        (*train, *held_out),
        out / "views",
        device=device,
        progress=lambda what, done, total: log.step("compare", what, done, total),
    ).astype(np.float32)
    row = Compared(
        name=candidate.name,
        weights=backbone.weights,
        side=side,
        parameters=_parameters(network),
        onnx_mb=round(path.stat().st_size / 1e6, 2),
        ms=0.0,
        cost=cost,
        accuracy={
            name: probe_accuracy(features, train, held_out, set(labels)) for name, labels in columns.items()
        },
    )
    return row, GraphSession(path, ["image"], ["logits"]), spec


def _parameters(network: Network) -> int:
    return sum(p.numel() for p in network.frozen.parameters())


def probe_accuracy(
    features: Float32s, train: Sequence[Photo], held_out: Sequence[Photo], labels: set[str]
) -> Accuracy:
    """Fit on the first rows of ``features``, measure on the others; photos of other labels are left out."""
    truth = np.array([photo.label for photo in (*train, *held_out)])
    known = np.isin(truth, sorted(labels))
    learned = np.flatnonzero(known[: len(train)])
    tested = len(train) + np.flatnonzero(known[len(train) :])
    if not len(tested) or len(set(truth[learned])) < 2:
        raise DataError(f"too few photos of {', '.join(sorted(labels))} to compare anything on")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=300))
    model.fit(features[learned], truth[learned])
    right = int((model.predict(features[tested]) == truth[tested]).sum())
    low, high = wilson_interval(right, len(tested))
    return Accuracy(right, len(tested), right / len(tested), low, high)


def _milliseconds(sessions: Sequence[tuple[GraphSession, InputSpec]]) -> list[float]:
    """Return the median time of one photo on one thread, each measured in turns."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (1, s.height, s.width, 3), dtype=np.uint8) for _, s in sessions]
    seconds: list[list[float]] = [[] for _ in sessions]
    for done in range(_ROUNDS + 1):
        for (session, _), image, spent in zip(sessions, images, seconds, strict=True):
            started = time.perf_counter()
            session.run({"image": image})
            if done:  # the first run also makes room
                spent.append(time.perf_counter() - started)
    return [1e3 * statistics.median(spent) for spent in seconds]
