"""Runs the image stages of a bundle in the making on the photos that it is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.arrays import Float32s
from cascade.bundle.stage import Expert, General
from cascade.errors import DataError
from cascade.evaluation.dataset import Photo
from cascade.inference.cpu import usable_cores
from cascade.inference.parallel import map_batches
from cascade.inference.pipeline import Pipeline, PreparedPhotos, StageOutputs
from cascade.training.calibration.outlier_exposure import Strangers
from cascade.training.calibration.stage_logits import StageLogits
from cascade.training.training_log import TrainingLog

__all__ = ["CalibrationOutputs", "StagesToRun", "calibration_outputs"]


@dataclass(frozen=True, slots=True)
class CalibrationOutputs:
    """What the image stages give for the photos that a bundle is calibrated on.

    Attributes:
        logits: of N photos, every expert asked.
        embedding: (N, D), of the general model.
        strangers: photos that are none of the labels, for the scope stage; None if there are none.
    """

    logits: StageLogits
    embedding: Float32s
    strangers: Strangers | None = None


@dataclass(frozen=True, slots=True)
class StagesToRun:
    """The image stages of a bundle in the making.

    Attributes:
        folder: where their graphs are.
        general: the general model; its labels are the bundle's.
        experts: likewise.
        log: is told about progress.
    """

    folder: Path
    general: General
    experts: tuple[Expert, ...]
    log: TrainingLog


def calibration_outputs(
    stages: StagesToRun, photos: Sequence[Photo], out_of_scope: Sequence[Photo]
) -> CalibrationOutputs:
    """Run every stage on labelled photos, and on strangers, if there are any.

    Raises:
        DataError: when none of the photos, or none of the strangers, can be read.
    """
    outputs, embedding = _outputs(stages, photos)
    return CalibrationOutputs(outputs, embedding, _strangers(stages, out_of_scope) if out_of_scope else None)


def _outputs(stages: StagesToRun, photos: Sequence[Photo]) -> tuple[StageLogits, Float32s]:
    """Return the logits of every image stage and the general model's embedding, (N, D)."""
    what = "outputs on calibration photos"
    read, outputs = _run(stages, photos, "always", what)
    if not read:
        raise DataError("none of the photos to calibrate on can be read")
    columns = {label: column for column, label in enumerate(stages.general.labels)}
    logits = _expert_logits(stages, outputs)
    general = np.concatenate([out.general_logits for out in outputs])
    embedding = np.concatenate([out.embedding for out in outputs])
    targets = np.array([columns[photo.label] for photo in read])
    return StageLogits(general, logits, targets, tuple(photo.source for photo in read)), embedding


def _expert_logits(stages: StagesToRun, outputs: Sequence[StageOutputs]) -> dict[str, Float32s]:
    return {
        expert.name: np.concatenate([out.expert_logits[expert.name] for out in outputs])
        for expert in stages.experts
    }


def _strangers(stages: StagesToRun, photos: Sequence[Photo]) -> Strangers:
    """Return what every stage gives for photos that are none of the labels."""
    what = "outputs on photos out of scope"
    read, outputs = _run(stages, photos, "always", what)
    if not read:
        raise DataError("none of the photos out of scope can be read")
    return Strangers(
        np.concatenate([out.general_logits for out in outputs]),
        np.concatenate([out.embedding for out in outputs]),
        tuple(photo.source for photo in read),
        np.array([photo.split == "calibration" for photo in read]),
        _expert_logits(stages, outputs),
    )


def _run(
    stages: StagesToRun, photos: Sequence[Photo], ask: str, what: str
) -> tuple[list[Photo], list[StageOutputs]]:
    """Run the image graphs with the pipeline that prediction uses; photos that cannot be read are named."""
    pipeline = Pipeline(stages.folder, stages.general, stages.experts)

    def run(batch: Sequence[Photo]) -> tuple[PreparedPhotos, StageOutputs | None]:
        prepared = pipeline.prepare([photo.path for photo in batch])
        return prepared, pipeline.run(prepared.inputs, ask=ask) if prepared.positions else None

    outputs: list[StageOutputs] = []
    read: list[Photo] = []
    done = 0
    for prepared, out in map_batches(run, photos, workers=usable_cores(), batch_size=16):
        for place, error, _ in prepared.failed:
            stages.log.line(f"{photos[done + place].path}: left out, it cannot be read ({error.message})")
        read += [photos[done + place] for place in prepared.positions]
        outputs += [] if out is None else [out]
        done += len(prepared.positions) + len(prepared.failed)
        stages.log.step("bundle", what, done, len(photos))
    return read, outputs
