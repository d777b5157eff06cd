"""From trained networks to a bundle. In: recipes, networks, photos. Out: the folder of a bundle.

export -> outputs on `calibration` -> calibrate -> graphs -> pack -> measure on `test`
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

import cascade
from cascade.bundle import Bundle
from cascade.classifier import usable_cores
from cascade.dataset import Dataset, Photo
from cascade.images import load_image
from cascade.labels import NOT_MINE, LabelTree
from cascade.preprocess import InputSpec, prepare
from cascade.session import GraphSession
from cascade.stage import FEATURES, IMAGE
from cascade.training.backbone import Network
from cascade.training.calibrate import calibrate
from cascade.training.calibration_data import Outputs
from cascade.training.card import model_card
from cascade.training.export import export_stage
from cascade.training.fit import Fitted
from cascade.training.graphs import arbiter_graph, router_graph
from cascade.training.guarantees import fit_guarantees
from cascade.training.measure import measure
from cascade.training.pack import (
    golden_photos,
    stage_entry,
    write_bundle,
    write_golden,
    write_policy,
)
from cascade.training.quantize import CALIBRATION_PHOTOS, quantize_stage
from cascade.training.recipe import Recipe
from cascade.training.report import Report
from cascade.training.scope import InScope

__all__ = ["assemble", "floating_point_operations", "stage_takes"]

#: The graphs use opset 18; onnxruntime 1.20 is the oldest that the light install allows.
MINIMUM_ONNXRUNTIME: Final = "1.20"


def assemble(
    folder: Path,
    recipes: Sequence[Recipe],
    networks: Mapping[str, Fitted],
    dataset: Dataset,
    *,
    report: Report,
    name: str,
    version: str,
    max_error: float,
    int8: bool,
) -> None:
    """Write a bundle into an empty folder.

    Args:
        folder: to write into.
        recipes: the general one first.
        networks: recipe -> what was trained.
        dataset: labelled photos.
        report: is told about progress.
        name: of the bundle.
        version: of the bundle.
        max_error: see `cascade.training.run.train`.
        int8: also pack an int8 variant of every image stage.
    """
    general, experts = recipes[0], recipes[1:]
    tree = LabelTree(tuple(general.labels), dict(general.labels))
    own = {expert.name: tuple(expert.labels) for expert in experts}
    takes = {r.name: stage_takes(r, general, networks) for r in recipes}
    shared = FEATURES in takes.values()
    work = {
        r.name: floating_point_operations(networks[r.name].network, r.input, takes[r.name]) for r in recipes
    }
    costs = {key: round(value / work["general"], 4) for key, value in work.items()}
    ranges = _RangePhotos(dataset, general.train.seed, networks["general"].network) if int8 else None
    entries: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        labels = [*recipe.labels, *([NOT_MINE] if recipe.kind == "expert" else [])]
        metadata = {
            "cascade.stage": recipe.name,
            "cascade.labels": json.dumps(labels),
            "cascade.input": json.dumps(recipe.input.to_dict()),
            "cascade.takes": takes[recipe.name],
            "cascade.bundle": f"{name} {version}",
        }
        network, gives = networks[recipe.name].network, _gives(recipe, shared)
        model = export_stage(
            network, recipe.input, outputs=gives, metadata=metadata, takes=takes[recipe.name]
        )
        entries[recipe.name] = stage_entry(
            model,
            recipe.name,
            folder,
            labels=labels,
            cost=costs[recipe.name],
            input=recipe.input.to_dict(),
            takes=takes[recipe.name],
        )
        report.line(
            f"{recipe.name}: exported, {(folder / f'{recipe.name}.onnx').stat().st_size / 1e6:.1f} MB"
        )
        if ranges is not None:
            full = export_stage(
                network,
                recipe.input,
                outputs=gives,
                metadata=metadata,
                takes=takes[recipe.name],
                half=False,
            )
            quantized = quantize_stage(full, ranges.of(recipe.input, takes[recipe.name]), metadata)
            variant = stage_entry(quantized, f"{recipe.name}.int8", folder)
            entries[recipe.name]["variants"] = {"int8": variant}
            report.line(f"{recipe.name}: quantised")

    outputs, embedding = _outputs(folder, recipes, takes, dataset.split("calibration"), report)
    seed = general.train.seed
    calibration = calibrate(outputs, tree, own, [costs[e.name] for e in experts], seed=seed)
    meta = {"cascade.bundle": f"{name} {version}", "cascade.labels": json.dumps(list(tree.labels))}
    guarantees = fit_guarantees(
        calibration,
        InScope(outputs.general, embedding, outputs.targets),
        tree,
        seed=seed,
        max_error=max_error,
        metadata={**meta, "cascade.stage": "scope"},
    )
    arbiter = arbiter_graph(calibration.arbiter, tree.labels, own, {**meta, "cascade.stage": "arbiter"})
    stages: dict[str, Any] = {
        "general": entries["general"],
        "experts": [{"name": e.name, **entries[e.name]} for e in experts],
        "router": None,
        "arbiter": stage_entry(arbiter, "arbiter", folder, labels=list(tree.labels)),
        "scope": stage_entry(guarantees.scope, "scope", folder, labels=["scope_score"]),
    }
    if calibration.router is not None:
        router = router_graph(calibration.router, tree.labels, own, {**meta, "cascade.stage": "router"})
        stages["router"] = stage_entry(router, "router", folder, labels=list(own))
    provenance = {
        "cascade": cascade.__version__,
        "recipes": {recipe.name: recipe.to_dict() for recipe in recipes},
        "data": {
            "fingerprint": dataset.fingerprint(),
            "photos": dict(Counter(photo.split for photo in dataset.photos)),
            "sources": dict(Counter(photo.source for photo in dataset.photos if photo.source)),
            "left_out": [[path.relative_to(dataset.folder).as_posix(), why] for path, why in dataset.dropped],
        },
        "licence": general.card.get("licence", ""),
        "packages": {"torch": torch.__version__, "onnx": onnx.__version__},
    }
    metrics = {
        "training": {key: list(fitted.history) for key, fitted in networks.items()},
        "calibration": calibration.facts | guarantees.facts,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    write_bundle(
        folder,
        name=name,
        version=version,
        labels=general.labels,
        stages=stages,
        operating_points={"default": guarantees.point.to_dict()},
        guarantees={
            "promise": guarantees.promise and guarantees.promise.to_dict(),
            "budget": guarantees.budget and guarantees.budget.to_dict(),
            "label_sets": guarantees.label_sets and guarantees.label_sets.to_dict(),
            "reference": guarantees.reference.to_dict(),
        },
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        provenance=provenance,
        measured={},
    )
    write_golden(folder, golden_photos())
    write_policy(folder)
    if dataset.split("test"):
        measured = measure(
            folder,
            dataset.split("test"),
            "test",
            lambda done, total: report.step("bundle", "measured on test photos", done, total),
        )
        report.line(f"cascade: {measured['ways']['cascade']['accuracy']:.1%} of the test photos are right")
        report.log({"measured": measured})
    (folder / "README.md").write_text(
        model_card(Bundle.load(folder), metrics, general.card), encoding="utf-8"
    )
    report.log({"calibration": metrics["calibration"]})


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


def _gives(recipe: Recipe, shared: bool) -> list[str]:
    if recipe.kind == "expert":
        return ["logits"]
    return ["logits", "embedding", FEATURES] if shared else ["logits", "embedding"]


class _RangePhotos:
    """Training photos that fix the ranges of int8, as each stage takes them."""

    def __init__(self, dataset: Dataset, seed: int, general: Network) -> None:
        photos = dataset.split("train")
        chosen = np.random.default_rng(seed).permutation(len(photos))[:CALIBRATION_PHOTOS]
        self._paths = [photos[i].path for i in chosen]
        self._general = general

    def of(self, spec: InputSpec, takes: str) -> npt.NDArray[Any]:
        """Return uint8 (N, H, W, 3), or features (N, ...)."""
        target, gap = spec.decode_target, spec.reducing_gap
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


def _outputs(
    folder: Path,
    recipes: Sequence[Recipe],
    takes: Mapping[str, str],
    photos: Sequence[Photo],
    report: Report,
) -> tuple[Outputs, npt.NDArray[np.float32]]:
    """Run the exported image stages on photos, read and prepared exactly as prediction does it.

    Returns everybody's logits and the general model's embedding, (N, D).
    """
    sessions = {}
    for recipe in recipes:
        names = _gives(recipe, FEATURES in takes.values())
        sessions[recipe.name] = GraphSession(folder / f"{recipe.name}.onnx", [takes[recipe.name]], names)
    target = (
        max(r.input.decode_target[0] for r in recipes),
        max(r.input.decode_target[1] for r in recipes),
    )
    gap = max(r.input.reducing_gap for r in recipes)

    def run(chunk: Sequence[Photo]) -> dict[str, npt.NDArray[Any]]:
        images = [load_image(photo.path, target=target, reducing_gap=gap) for photo in chunk]
        specs = {recipe.input for recipe in recipes}
        ready = {spec: np.stack([prepare(image, spec) for image in images]) for spec in specs}
        general = sessions["general"].run_photos(ready[recipes[0].input])
        logits = {"general": general["logits"]}
        for recipe in recipes[1:]:
            taken = general[FEATURES] if takes[recipe.name] == FEATURES else ready[recipe.input]
            logits[recipe.name] = sessions[recipe.name].run_photos(taken)["logits"]
        return logits | {"embedding": general["embedding"]}

    parts: dict[str, list[npt.NDArray[Any]]] = {"embedding": [], **{recipe.name: [] for recipe in recipes}}
    with ThreadPoolExecutor(usable_cores()) as pool:
        chunks = [list(chunk) for chunk in _chunks(photos, 16)]
        for done, result in enumerate(pool.map(run, chunks), 1):
            for key, value in result.items():
                parts[key].append(value)
            report.step("bundle", "outputs on calibration photos", done, len(chunks))
    logits = {key: np.concatenate(value) for key, value in parts.items()}
    embedding = logits.pop("embedding")
    labels = list(recipes[0].labels)
    targets = np.array([labels.index(photo.label) for photo in photos])
    return Outputs(logits.pop("general"), logits, targets), embedding


def _chunks(photos: Sequence[Photo], size: int) -> Iterator[Sequence[Photo]]:
    return (photos[i : i + size] for i in range(0, len(photos), size))
