"""Makes a bundle from the graphs of the general model and the experts, and labelled photos.

outputs on `calibration` -> calibrate -> small graphs -> pack -> measure on `test`
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cascade.bundle.manifest import MANIFEST, Bundle
from cascade.bundle.stage import Arbiter, Expert, General, Router, Scope
from cascade.evaluation.dataset import Dataset, Photo
from cascade.labels import LabelTree
from cascade.training.calibration.cross_fitting import Calibration, calibrate
from cascade.training.calibration.guarantees import Guarantees, fit_guarantees
from cascade.training.calibration.out_of_distribution import InScope
from cascade.training.calibration.shortfalls import shortfalls
from cascade.training.export.bundle_documents import seal, write_documents
from cascade.training.export.calibration_outputs import (
    CalibrationOutputs,
    StagesToRun,
    calibration_outputs,
)
from cascade.training.export.decision_graphs import arbiter_graph, router_graph
from cascade.training.export.golden import write_golden
from cascade.training.export.measure import measure
from cascade.training.export.model_card import model_card
from cascade.training.export.packaging import stage_entry
from cascade.training.export.readable_json import readable_json
from cascade.training.training_log import TrainingLog

__all__ = ["Draft", "data_summary", "finish_bundle", "finish_with"]

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
    general: General
    experts: tuple[Expert, ...]
    provenance: Mapping[str, Any]
    words: Mapping[str, str]
    training: Mapping[str, Any]
    seed: int

    @property
    def own_labels(self) -> dict[str, tuple[str, ...]]:
        """Expert -> its labels, without "not mine"."""
        return {expert.name: expert.labels[:-1] for expert in self.experts}

    def metadata(self, stage: str) -> dict[str, str]:
        """Return what the graph of a small stage says about itself."""
        return {
            "cascade.bundle": f"{self.name} {self.version}",
            "cascade.labels": json.dumps(list(self.tree.labels)),
            "cascade.stage": stage,
        }


def data_summary(dataset: Dataset) -> dict[str, Any]:
    """Return what a bundle says about the photos that it was made with."""
    return {
        "fingerprint": dataset.fingerprint(),
        "photos": dict(Counter(photo.split for photo in dataset.photos)),
        "sources": dict(Counter(photo.source for photo in dataset.photos if photo.source)),
        "left_out": [[path.relative_to(dataset.folder).as_posix(), why] for path, why in dataset.dropped],
    }


def finish_bundle(
    folder: Path,
    draft: Draft,
    calibration_photos: Sequence[Photo],
    test_photos: Sequence[Photo],
    *,
    log: TrainingLog,
    max_error: float,
    out_of_scope: Sequence[Photo] = (),
) -> None:
    """Fit arbiter, router, scope stage and promises, and write all that a bundle has beside its networks.

    Args:
        folder: of the bundle; holds the graphs of the draft.
        draft: what is there.
        calibration_photos: what is fitted, is fitted on these.
        test_photos: measured at the end; may be empty.
        log: shows the progress.
        max_error: see `cascade.training.run.train`.
        out_of_scope: photos that are none of the labels, for the scope stage.
    """
    stages = StagesToRun(folder, draft.general, draft.experts, log)
    given = calibration_outputs(stages, calibration_photos, out_of_scope)
    finish_with(folder, draft, given, test_photos, log=log, max_error=max_error)


def finish_with(
    folder: Path,
    draft: Draft,
    given: CalibrationOutputs,
    test_photos: Sequence[Photo],
    *,
    log: TrainingLog,
    max_error: float,
) -> None:
    """Do what `finish_bundle` does, with outputs that are there already.

    Args:
        folder: of the bundle; holds the graphs of the draft.
        draft: what is there.
        given: what is fitted, is fitted on these.
        test_photos: measured at the end; may be empty.
        log: shows the progress.
        max_error: see `cascade.training.run.train`.
    """
    tree, seed, logits = draft.tree, draft.seed, given.logits
    calibration = calibrate(logits, tree, draft.own_labels, [e.cost for e in draft.experts], seed=seed)
    guarantees = fit_guarantees(
        calibration,
        InScope(logits.general, given.embedding, logits.targets, logits.sources),
        tree,
        seed=seed,
        max_error=max_error,
        metadata=draft.metadata("scope"),
        strangers=given.strangers,
    )
    missing = shortfalls(
        guarantees,
        [tree.labels[target] for target in logits.targets],
        tree,
        max_error=max_error,
        fit_photos=len(calibration.fit_rows),
        test_photos=len(test_photos),
    )
    metrics = {
        "training": dict(draft.training),
        "calibration": calibration.summary | guarantees.summary | {"shortfalls": missing},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    _write_manifest(folder, draft, calibration, guarantees)
    write_golden(folder)
    write_documents(folder)
    if test_photos:
        _measure(folder, test_photos, log)
    card = model_card(Bundle.load(folder), metrics, draft.words)
    (folder / "README.md").write_text(card, encoding="utf-8")
    seal(folder)
    log.record({"calibration": metrics["calibration"]})
    if missing:
        log.line("with more photos this bundle could do more; for now (its card says it too):")
        for sentence in missing:
            log.line(f"  - {sentence}")


def _write_manifest(folder: Path, draft: Draft, calibration: Calibration, guarantees: Guarantees) -> None:
    """Write the small graphs and bundle.json; nothing is measured yet."""
    labels, own = draft.tree.labels, draft.own_labels
    arbiter = arbiter_graph(calibration.arbiter, labels, own, draft.metadata("arbiter"))
    router = scope = None
    if guarantees.scope is not None:
        scope = Scope(**stage_entry(guarantees.scope, "scope", folder, labels=("scope_score",)))
    if calibration.router is not None:
        graph = router_graph(calibration.router, labels, own, draft.metadata("router"))
        router = Router(**stage_entry(graph, "router", folder, labels=tuple(own)))
    bundle = Bundle(
        folder=folder,
        name=draft.name,
        version=draft.version,
        tree=draft.tree,
        general=draft.general,
        experts=draft.experts,
        router=router,
        arbiter=Arbiter(**stage_entry(arbiter, "arbiter", folder, labels=labels)),
        scope=scope,
        operating_points={"default": guarantees.point},
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        provenance=dict(draft.provenance),
        promise=guarantees.promise,
        budget=guarantees.budget,
        label_sets=guarantees.label_sets,
        reference=guarantees.reference,
    )
    (folder / MANIFEST).write_text(readable_json(bundle.to_dict()), encoding="utf-8")


def _measure(folder: Path, photos: Sequence[Photo], log: TrainingLog) -> None:
    """Measure the bundle on test photos, write the figures into it and log them."""
    measured = measure(
        folder,
        photos,
        "test",
        lambda done, total: log.step("bundle", "measured on test photos", done, total),
    )
    log.line(f"cascade: {measured['ways']['cascade']['accuracy']:.1%} of the test photos are right")
    log.record({"measured": measured})
