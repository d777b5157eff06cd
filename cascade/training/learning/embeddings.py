"""Computes what the head of every image stage reads, for photos: the embedding of each stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from cascade.arrays import Float32s
from cascade.bundle.graph_file import read_graph
from cascade.bundle.graph_safety import check_graph
from cascade.bundle.stage import FEATURES, Expert, General, ImageStage
from cascade.evaluation.dataset import Photo
from cascade.inference.cpu import usable_cores
from cascade.inference.parallel import map_batches
from cascade.inference.pipeline import Pipeline
from cascade.inference.session import GraphSession
from cascade.training.learning.heads import HEAD_INPUT, tapped

__all__ = ["Embedded", "embed"]

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of N photos.

    Attributes:
        photos: the N photos that could be read.
        of: stage -> (N, D), what its head reads.
        failed: (photo, message) of the others.
    """

    photos: tuple[Photo, ...]
    of: Mapping[str, Float32s]
    failed: tuple[tuple[Photo, str], ...]


def embed(
    folder: Path,
    general: General,
    experts: Sequence[Expert],
    photos: Sequence[Photo],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embedded:
    """Run the image stages of a bundle, or of one in the making, on photos.

    Args:
        folder: where their graphs are.
        general: the general model.
        experts: those of which embeddings are wanted; none may do.
        photos: any number of them.
        progress: called with (done, total).

    Raises:
        BundleError: when a graph is damaged, or its logits do not come from one linear layer.
    """
    shared = any(stage.takes == FEATURES for stage in experts)
    sessions = {stage.name: _open(folder, stage, shared=shared) for stage in (general, *experts)}
    pipeline = Pipeline(folder, general, experts)

    def run(batch: Sequence[Photo]) -> tuple[tuple[int, ...], list[tuple[int, str]], dict[str, Float32s]]:
        prepared = pipeline.prepare([photo.path for photo in batch])
        failed = [(place, error.message) for place, error, _ in prepared.failed]
        if not prepared.positions:
            return (), failed, {}
        out = sessions[general.name].run_photos(prepared.inputs[general.input])
        given = {general.name: out[HEAD_INPUT]}
        for stage in experts:
            taken = out[FEATURES] if stage.takes == FEATURES else prepared.inputs[stage.input]
            given[stage.name] = sessions[stage.name].run_photos(taken)[HEAD_INPUT]
        return prepared.positions, failed, given

    read: list[Photo] = []
    lost: list[tuple[Photo, str]] = []
    parts: dict[str, list[Float32s]] = {stage.name: [] for stage in (general, *experts)}
    done = 0
    for positions, failed, given in map_batches(run, photos, workers=usable_cores(), batch_size=_BATCH):
        read += [photos[done + place] for place in positions]
        lost += [(photos[done + place], message) for place, message in failed]
        for name in parts if given else ():
            parts[name].append(given[name])
        done += len(positions) + len(failed)
        progress(done, len(photos))
    of = {
        name: np.concatenate(each) if each else np.zeros((0, 0), np.float32) for name, each in parts.items()
    }
    return Embedded(tuple(read), of, tuple(lost))


def _open(folder: Path, stage: ImageStage, *, shared: bool) -> GraphSession:
    path = folder / stage.file
    content = read_graph(folder, stage)
    check_graph(content, path)
    outputs = [HEAD_INPUT, *([FEATURES] if shared and stage.name == "general" else [])]
    model = onnx.load_model_from_string(content)
    return GraphSession(path, [str(stage.takes)], outputs, content=tapped(model, str(path)))
