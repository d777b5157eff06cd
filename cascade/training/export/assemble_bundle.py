"""Makes a bundle from trained networks: exports and quantises them, then finishes the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import PIL
import torch
from torch.utils.flop_counter import FlopCounterMode

import cascade
from cascade.bundle.stage import FEATURES, IMAGE, Expert, General
from cascade.evaluation.dataset import Dataset, Photo
from cascade.imaging.decoding import load_image
from cascade.imaging.preprocessing import InputSpec, decoding_of, prepare
from cascade.inference.pipeline import graph_outputs
from cascade.labels import NOT_MINE, LabelTree
from cascade.training.export.finish_bundle import Draft, data_summary, finish_bundle
from cascade.training.export.image_graph import export_stage
from cascade.training.export.packaging import stage_entry
from cascade.training.export.quantize import CALIBRATION_PHOTOS, quantize_stage
from cascade.training.fit.backbone import Network
from cascade.training.fit.network import Fitted
from cascade.training.learning.memory import MEMORY_FILE, write_memory
from cascade.training.learning.remember import ImageStages, heads_of, memory_of
from cascade.training.recipe import Recipe
from cascade.training.training_log import TrainingLog

__all__ = ["BundleOptions", "assemble_bundle", "floating_point_operations", "stage_takes"]


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What a bundle is called and what it holds beside the trained networks.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        max_error: see `cascade.training.run.train`.
        int8: also pack an int8 variant of every image stage.
        out_of_scope: photos that are none of the labels, for the scope stage.
    """

    name: str
    version: str
    max_error: float
    int8: bool
    out_of_scope: Dataset | None = None

    @property
    def title(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}"


def assemble_bundle(
    folder: Path,
    recipes: Sequence[Recipe],
    networks: Mapping[str, Fitted],
    dataset: Dataset,
    *,
    options: BundleOptions,
    log: TrainingLog,
) -> None:
    """Write a bundle into an empty folder.

    Args:
        folder: to write into.
        recipes: the general one first.
        networks: recipe -> what was trained.
        dataset: labelled photos.
        options: what else makes the bundle.
        log: shows the progress.
    """
    general = recipes[0]
    takes = {r.name: stage_takes(r, general, networks) for r in recipes}
    shared = FEATURES in takes.values()
    work = {
        r.name: floating_point_operations(networks[r.name].network, r.input, takes[r.name]) for r in recipes
    }
    costs = {key: round(value / work["general"], 4) for key, value in work.items()}
    ranges = _RangePhotos(dataset, general.train.seed, recipes, networks["general"].network)
    entries = []
    for recipe in recipes:
        stage = _ImageStage(
            recipe,
            networks[recipe.name].network,
            takes[recipe.name],
            graph_outputs(recipe.name, shared=shared),
        )
        entry = _export(stage, folder, options.title, costs[recipe.name], log)
        if options.int8:
            entry["variants"] = {"int8": _export_int8(stage, folder, options.title, ranges, log)}
        entries.append(entry if recipe is general else entry | {"name": recipe.name})
    draft = Draft(
        options.name,
        options.version,
        LabelTree(tuple(general.labels), dict(general.labels)),
        General.from_dict(entries[0]),
        tuple(Expert.from_dict(entry) for entry in entries[1:]),
        _provenance(recipes, dataset, options.out_of_scope),
        general.card,
        {key: list(fitted.history) for key, fitted in networks.items()},
        general.train.seed,
    )
    strangers = options.out_of_scope.photos if options.out_of_scope else ()
    _remember(folder, draft, dataset, strangers, log)
    fits, judges = dataset.split("calibration"), dataset.split("test")
    finish_bundle(folder, draft, fits, judges, log=log, max_error=options.max_error, out_of_scope=strangers)


def _remember(
    folder: Path, draft: Draft, dataset: Dataset, strangers: Sequence[Photo], log: TrainingLog
) -> None:
    """Write what `cascade learn` needs, so that it needs no photos."""
    stages = ImageStages(folder, draft.general, draft.experts)
    memory = memory_of(stages, dataset.photos, strangers, log, draft.seed)
    write_memory(folder / MEMORY_FILE, memory, heads_of(stages))


@dataclass(frozen=True, slots=True)
class _ImageStage:
    """A trained network that becomes an image stage; it takes pixels or features and gives ``outputs``."""

    recipe: Recipe
    network: Network
    takes: str
    outputs: Sequence[str]

    @property
    def labels(self) -> list[str]:
        """One label per logit."""
        return [*self.recipe.labels, *([NOT_MINE] if self.recipe.kind == "expert" else [])]

    def metadata(self, title: str) -> dict[str, str]:
        """Return what the graph says about itself, in a bundle of this title."""
        return {
            "cascade.stage": self.recipe.name,
            "cascade.labels": json.dumps(self.labels),
            "cascade.input": json.dumps(self.recipe.input.to_dict()),
            "cascade.takes": self.takes,
            "cascade.bundle": title,
        }

    def graph(self, title: str, *, half: bool) -> onnx.ModelProto:
        """Return the graph, with large weights in half precision or not."""
        return export_stage(
            self.network,
            self.recipe.input,
            outputs=self.outputs,
            metadata=self.metadata(title),
            takes=self.takes,
            half=half,
        )


def _export(stage: _ImageStage, folder: Path, title: str, cost: float, log: TrainingLog) -> dict[str, Any]:
    """Write the graph of a stage and return its entry in bundle.json."""
    name = stage.recipe.name
    entry = stage_entry(
        stage.graph(title, half=True),
        name,
        folder,
        labels=stage.labels,
        cost=cost,
        input=stage.recipe.input.to_dict(),
        takes=stage.takes,
    )
    log.line(f"{name}: exported, {(folder / f'{name}.onnx').stat().st_size / 1e6:.1f} MB")
    return entry


def _export_int8(
    stage: _ImageStage, folder: Path, title: str, ranges: _RangePhotos, log: TrainingLog
) -> dict[str, Any]:
    """Write the int8 variant of a stage and return its entry in bundle.json."""
    photos = ranges.of(stage.recipe.input, stage.takes)
    quantized = quantize_stage(stage.graph(title, half=False), photos, stage.metadata(title))
    entry = stage_entry(quantized, f"{stage.recipe.name}.int8", folder)
    log.line(f"{stage.recipe.name}: quantised")
    return entry


def _provenance(recipes: Sequence[Recipe], dataset: Dataset, out_of_scope: Dataset | None) -> dict[str, Any]:
    """Return where the bundle comes from, as bundle.json says it."""
    return {
        "cascade": cascade.__version__,
        "recipes": {recipe.name: recipe.to_dict() for recipe in recipes},
        "data": data_summary(dataset),
        **({"out_of_scope": data_summary(out_of_scope)} if out_of_scope else {}),
        "licence": recipes[0].card.get("licence", ""),
        "packages": {"torch": str(torch.__version__), "onnx": onnx.__version__, "pillow": PIL.__version__},
    }


def stage_takes(recipe: Recipe, general: Recipe, networks: Mapping[str, Fitted]) -> str:
    """Return what a stage takes: the general model's features, if its own frozen part would give the same.

    Early blocks have few channels but see all pixels: a good part of the time of a network.
    """
    if recipe is general or recipe.input != general.input:
        return IMAGE
    ours = networks["general"].network.frozen.state_dict()
    its = networks[recipe.name].network.frozen.state_dict()
    # Nothing frozen but the normalisation has no weights, and is not worth sharing.
    same = bool(ours) and ours.keys() == its.keys() and all(ours[key].equal(its[key]) for key in ours)
    return FEATURES if same and recipe.train.train_from == general.train.train_from else IMAGE


class _RangePhotos:
    """Training photos that fix the ranges of int8, as each stage takes them."""

    def __init__(self, dataset: Dataset, seed: int, recipes: Sequence[Recipe], general: Network) -> None:
        photos = dataset.split("train")
        chosen = np.random.default_rng(seed).permutation(len(photos))[:CALIBRATION_PHOTOS]
        self._paths = [photos[i].path for i in chosen]
        self._general = general
        self._specs = [recipe.input for recipe in recipes]

    def of(self, spec: InputSpec, takes: str) -> npt.NDArray[Any]:
        """Return uint8 (N, H, W, 3), or features (N, ...)."""
        target, gap = decoding_of(self._specs)
        images = [load_image(path, target=target, reducing_gap=gap) for path in self._paths]
        pixels = np.stack([prepare(image, spec) for image in images])
        if takes == IMAGE:
            return pixels
        with torch.inference_mode():
            planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            return np.asarray(self._general.eval().frozen(planes).numpy())


def floating_point_operations(network: Network, spec: InputSpec, takes: str = IMAGE) -> float:
    """Count the floating-point operations that one photo takes; the cost of a stage is their ratio.

    Counted and not timed, so that the same seed gives the same bundle.
    """
    pixels = torch.zeros(1, 3, spec.height, spec.width)
    with torch.inference_mode():
        network.eval()
        features = network.frozen(pixels)
        with FlopCounterMode(display=False) as counter:
            if takes == FEATURES:
                network.logits_of_features(features)
            else:
                network(pixels)
    return float(counter.get_total_flops())
