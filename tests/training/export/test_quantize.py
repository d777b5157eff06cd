"""Quantising: the same inputs and outputs, nearly the same answers, integers inside, pixels untouched."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.onnx_runtime import ort

onnx = pytest.importorskip("onnx", reason="needs the extra `train`")

from onnx import TensorProto, helper, numpy_helper

from cascade.bundle.graph_safety import check_graph
from cascade.training.export.quantize import quantize_stage

SIDE, WIDTH = 24, 16


def image_stage() -> onnx.ModelProto:
    """A small convolutional network with the bundle's contract: uint8 (N, H, W, 3) -> logits, embedding."""
    rng = np.random.default_rng(1)
    constants = {
        "scale": np.float32(1 / 127.5),
        "shift": np.float32(-1),
        "w1": rng.normal(0, 0.3, (WIDTH, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.15, (WIDTH, WIDTH, 3, 3)).astype(np.float32),
        "b": rng.normal(0, 0.1, WIDTH).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "head": rng.normal(0, 1, (WIDTH, 5)).astype(np.float32),
        "axes": np.array([2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"], "scale_pixels"),
        helper.make_node("Add", ["scaled", "shift"], ["normal"], "shift_pixels"),
        helper.make_node("Conv", ["normal", "w1", "b"], ["c1"], "conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Clip", ["c1", "low", "high"], ["a1"], "act1"),
        helper.make_node("Conv", ["a1", "w2", "b"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "a1"], ["a2"], "residual"),
        helper.make_node("ReduceMean", ["a2", "axes"], ["embedding"], "pool", keepdims=0),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"], "classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", WIDTH]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pictures(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    flat = rng.integers(0, 256, (count, 1, 1, 3)) + rng.normal(0, 40, (count, SIDE, SIDE, 3))
    return flat.clip(0, 255).astype(np.uint8)


def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits", "embedding"], {"image": images})


def test_an_int8_stage_says_nearly_the_same() -> None:
    exact = image_stage()
    before = exact.SerializeToString()
    int8 = quantize_stage(exact, pictures(64, 2), {"cascade.stage": "general"})
    assert exact.SerializeToString() == before
    images = pictures(80, 3)
    logits, embedding = run(exact, images)
    quantized_logits, quantized_embedding = run(int8, images)
    assert quantized_embedding.shape == embedding.shape
    assert not np.array_equal(quantized_logits, logits)
    assert np.abs(quantized_logits - logits).mean() < 0.03 * np.abs(logits).mean()
    assert (quantized_logits.argmax(1) == logits.argmax(1)).mean() > 0.95


def test_what_is_quantised_and_what_is_not() -> None:
    int8 = quantize_stage(image_stage(), pictures(16, 2), {"cascade.stage": "general"})
    made_by = {name: node for node in int8.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in int8.graph.initializer}
    for node in int8.graph.node:
        if node.op_type == "Conv":
            assert made_by[node.input[0]].op_type == "DequantizeLinear"
            weight = made_by[node.input[1]]
            assert constants[weight.input[0]].data_type == TensorProto.INT8
            assert constants[weight.input[1]].dims == [WIDTH]  # one scale per channel
        if node.name in ("scale_pixels", "shift_pixels", "classify"):
            assert all(made_by[n].op_type != "DequantizeLinear" for n in node.input if n in made_by)
    metadata = {each.key: each.value for each in int8.metadata_props}
    assert metadata == {"cascade.stage": "general", "cascade.variant": "int8"}
    check_graph(int8.SerializeToString(), "int8")  # standard operators only: a bundle may hold it
