"""A bundle whose networks are random features of a photo's mean colour under trained heads: quick to make,
and real in everything that learning touches. `write_colours` writes photos for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import Expert, General
from cascade.evaluation.dataset import scan
from cascade.imaging.preprocessing import InputSpec
from cascade.labels import NOT_MINE, LabelTree
from cascade.training.export.finish_bundle import Draft, finish_bundle
from cascade.training.learning.embeddings import embed
from cascade.training.learning.fit_head import Lesson, fit_head
from cascade.training.learning.heads import Head, replace_head, write_graph
from cascade.training.learning.lessons import targets_of
from cascade.training.learning.remember import remember
from cascade.training.training_log import TrainingLog

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
_SIDE, _WIDTH = 16, 24
_SPEC = InputSpec(width=_SIDE, height=_SIDE)


def write_colours(folder: Path, colours: dict[str, tuple[int, int, int]], count: int, seed: int) -> Path:
    """Write LABEL/SEED-N.png, each of about the label's colour, and return the folder."""
    rng = np.random.default_rng(seed)
    for label, colour in colours.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            middle = np.array(colour) + rng.normal(0, 18, 3)
            pixels = np.clip(middle + rng.normal(0, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{seed}-{i}.png")
    return folder


def make_linear_bundle(folder: Path, photos: Path, strangers: Path) -> Path:
    """Write a bundle of the labels red, green and blue, with the expert `warm` and an int8 variant."""
    folder.mkdir(parents=True)
    dataset = scan(photos)
    labels = dataset.labels
    general = _stage(folder, "general", labels, 0, 1.0)
    warm = _stage(folder, "warm", ("green", "red", NOT_MINE), 1, 1.5)
    learned = embed(folder, general, [warm], dataset.split("train"))
    stages = []
    for stage in (general, warm):
        targets = targets_of([photo.label for photo in learned.photos], stage.labels)
        count = len(stage.labels)
        start = Head(np.zeros((count, _WIDTH)), np.zeros(count))
        lesson = Lesson(learned.of[stage.name], np.eye(count)[targets], np.ones(len(targets)))
        head = fit_head(start, lesson, 1e-3).stored()
        stages.append(_stage(folder, stage.name, stage.labels, int(stage.name == "warm"), stage.cost, head))
    tree = LabelTree(labels, dict.fromkeys(labels, "colour"))
    draft = Draft("linear", "1.0.0", tree, stages[0], (stages[1],), {}, {}, {}, 0)
    foreign = scan(strangers).photos
    with TrainingLog() as log:
        fits, judges = dataset.split("calibration"), dataset.split("test")
        finish_bundle(folder, draft, fits, judges, log=log, max_error=0.3, out_of_scope=foreign)
        remember(Bundle.load(folder), dataset, foreign, log)
    return folder


def _stage(
    folder: Path, name: str, labels: tuple[str, ...], seed: int, cost: float, head: Head | None = None
) -> General | Expert:
    model = _graph(name, len(labels), seed)
    model = model if head is None else replace_head(model, head, name)
    files = {}
    for kind in ("", ".int8"):
        path = folder / f"{name}{kind}.onnx"
        files[kind] = {
            "file": path.name,
            "sha256": write_graph(model, path, stage=name, labels=labels, title="linear"),
        }
    entry = files[""] | {"labels": list(labels), "cost": cost, "input": _SPEC.to_dict(), "takes": "image"}
    entry |= {"variants": {"int8": files[".int8"]}}
    return General.from_dict(entry) if name == "general" else Expert.from_dict(entry | {"name": name})


def _graph(name: str, count: int, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    constants = {
        "axes": np.array([1, 2], np.int64),
        "middle": np.float32(128),
        "mix": (rng.normal(0, 1, (3, _WIDTH)) / 64).astype(np.float32),
        "shift": rng.normal(0, 1, _WIDTH).astype(np.float32),
        "head.weight": np.zeros((count, _WIDTH), np.float32),
        "head.bias": np.zeros(count, np.float32),
    }
    embedding = "embedding" if name == "general" else "view"
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("MatMul", ["centred", "mix"], ["mixed"]),
        helper.make_node("Add", ["mixed", "shift"], ["shifted"]),
        helper.make_node("Relu", ["shifted"], [embedding]),
        helper.make_node("Gemm", [embedding, "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    widths = {"logits": count} | ({"embedding": _WIDTH} if name == "general" else {})
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", _SIDE, _SIDE, 3])],
        [
            helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N", width])
            for key, width in widths.items()
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"cascade.input": json.dumps(_SPEC.to_dict()), "cascade.takes": "image"})
    return model
