"""From image graphs to a bundle. In: a folder with the graphs of the general model and the experts, labelled
photos. Out: the rest of the bundle.

outputs on `calibration` -> calibrate -> small graphs -> pack -> measure on `test`
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import FEATURES, Stage
from cascade.evaluation.dataset import Dataset, Photo
from cascade.imaging.decoding import load_image
from cascade.imaging.preprocessing import prepare
from cascade.inference.cpu import usable_cores
from cascade.inference.session import GraphSession
from cascade.labels import LabelTree
from cascade.training.calibration.cross_fitting import calibrate
from cascade.training.calibration.guarantees import fit_guarantees
from cascade.training.calibration.out_of_distribution import InScope
from cascade.training.calibration.stage_logits import Outputs
from cascade.training.export.decision_graphs import arbiter_graph, router_graph
from cascade.training.export.measure import measure
from cascade.training.export.model_card import model_card
from cascade.training.export.packaging import (
    golden_photos,
    stage_entry,
    write_bundle,
    write_golden,
    write_policy,
)
from cascade.training.progress import Report

__all__ = ["Draft", "complete", "data_facts", "gives"]

#: The graphs use opset 18; onnxruntime 1.20 is the oldest that the light install allows.
MINIMUM_ONNXRUNTIME: Final = "1.20"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a bundle is before anything is calibrated.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        tree: its labels.
        general: the general model; its graphs lie in the bundle's folder.
        experts: likewise.
        provenance: as in bundle.json.
        words: the section ``[card]`` of the general recipe.
        training: stage -> what every epoch measured, for metrics.json.
        seed: of all partitions.
    """

    name: str
    version: str
    tree: LabelTree
    general: Stage
    experts: tuple[Stage, ...]
    provenance: Mapping[str, Any]
    words: Mapping[str, str]
    training: Mapping[str, Any]
    seed: int


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """Return what a bundle says about the photos that it was made with."""
    return {
        "fingerprint": dataset.fingerprint(),
        "photos": dict(Counter(photo.split for photo in dataset.photos)),
        "sources": dict(Counter(photo.source for photo in dataset.photos if photo.source)),
        "left_out": [[path.relative_to(dataset.folder).as_posix(), why] for path, why in dataset.dropped],
    }


def gives(name: str, shared: bool) -> list[str]:
    """Return what an image stage gives; ``shared`` if experts take the general model's features."""
    if name != "general":
        return ["logits"]
    return ["logits", "embedding", FEATURES] if shared else ["logits", "embedding"]


def complete(
    folder: Path,
    draft: Draft,
    calibration_photos: Sequence[Photo],
    test_photos: Sequence[Photo],
    *,
    report: Report,
    max_error: float,
) -> None:
    """Fit arbiter, router, scope stage and promises, and write all that a bundle has beside its networks.

    Args:
        folder: of the bundle; holds the graphs of the draft.
        draft: what is there.
        calibration_photos: what is fitted, is fitted on these.
        test_photos: measured at the end; may be empty.
        report: is told about progress.
        max_error: see `cascade.training.run.train`.
    """
    tree, seed, name, version = draft.tree, draft.seed, draft.name, draft.version
    own = {expert.name: expert.labels[:-1] for expert in draft.experts}
    outputs, embedding = _outputs(folder, draft, calibration_photos, report)
    calibration = calibrate(outputs, tree, own, [expert.cost for expert in draft.experts], seed=seed)
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
        "general": draft.general.to_dict(),
        "experts": [{"name": expert.name, **expert.to_dict()} for expert in draft.experts],
        "router": None,
        "arbiter": stage_entry(arbiter, "arbiter", folder, labels=list(tree.labels)),
        "scope": stage_entry(guarantees.scope, "scope", folder, labels=["scope_score"]),
    }
    if calibration.router is not None:
        router = router_graph(calibration.router, tree.labels, own, {**meta, "cascade.stage": "router"})
        stages["router"] = stage_entry(router, "router", folder, labels=list(own))
    metrics = {"training": dict(draft.training), "calibration": calibration.facts | guarantees.facts}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    write_bundle(
        folder,
        name=name,
        version=version,
        labels={label: tree.parent_of[label] for label in tree.labels},
        stages=stages,
        operating_points={"default": guarantees.point.to_dict()},
        guarantees={
            "promise": guarantees.promise and guarantees.promise.to_dict(),
            "budget": guarantees.budget and guarantees.budget.to_dict(),
            "label_sets": guarantees.label_sets and guarantees.label_sets.to_dict(),
            "reference": guarantees.reference.to_dict(),
        },
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        provenance=draft.provenance,
        measured={},
    )
    write_golden(folder, golden_photos())
    write_policy(folder)
    if test_photos:
        measured = measure(
            folder,
            test_photos,
            "test",
            lambda done, total: report.step("bundle", "measured on test photos", done, total),
        )
        report.line(f"cascade: {measured['ways']['cascade']['accuracy']:.1%} of the test photos are right")
        report.log({"measured": measured})
    card = model_card(Bundle.load(folder), metrics, draft.words)
    (folder / "README.md").write_text(card, encoding="utf-8")
    report.log({"calibration": metrics["calibration"]})


def _outputs(
    folder: Path, draft: Draft, photos: Sequence[Photo], report: Report
) -> tuple[Outputs, npt.NDArray[np.float32]]:
    """Run the image graphs on photos, read and prepared exactly as prediction does it.

    Returns everybody's logits and the general model's embedding, (N, D).
    """
    general, stages = draft.general, (draft.general, *draft.experts)
    shared = any(stage.takes == FEATURES for stage in stages)
    sessions = {
        stage.name: GraphSession(folder / stage.file, [stage.takes], gives(stage.name, shared))
        for stage in stages
    }
    specs = {stage.input for stage in stages if stage.input is not None}
    target = (max(spec.decode_target[0] for spec in specs), max(spec.decode_target[1] for spec in specs))
    gap = max(spec.reducing_gap for spec in specs)

    def run(chunk: Sequence[Photo]) -> dict[str, npt.NDArray[Any]]:
        images = [load_image(photo.path, target=target, reducing_gap=gap) for photo in chunk]
        ready = {spec: np.stack([prepare(image, spec) for image in images]) for spec in specs}
        assert general.input is not None
        first = sessions["general"].run_photos(ready[general.input])
        logits = {"general": first["logits"], "embedding": first["embedding"]}
        for stage in draft.experts:
            assert stage.input is not None
            taken = first[FEATURES] if stage.takes == FEATURES else ready[stage.input]
            logits[stage.name] = sessions[stage.name].run_photos(taken)["logits"]
        return logits

    parts: dict[str, list[npt.NDArray[Any]]] = {"embedding": [], **{stage.name: [] for stage in stages}}
    with ThreadPoolExecutor(usable_cores()) as pool:
        chunks = [list(chunk) for chunk in _chunks(photos, 16)]
        for done, result in enumerate(pool.map(run, chunks), 1):
            for key, value in result.items():
                parts[key].append(value)
            report.step("bundle", "outputs on calibration photos", done, len(chunks))
    logits = {key: np.concatenate(value) for key, value in parts.items()}
    embedding = logits.pop("embedding")
    labels = list(draft.tree.labels)
    targets = np.array([labels.index(photo.label) for photo in photos])
    return Outputs(logits.pop("general"), logits, targets), embedding


def _chunks(photos: Sequence[Photo], size: int) -> Iterator[Sequence[Photo]]:
    return (photos[i : i + size] for i in range(0, len(photos), size))
