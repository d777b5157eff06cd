"""Reads and replaces the last linear layer, the head, of an image stage's ONNX graph.

    logits = head_input @ weights.T + bias

The graph before the head stays as it is, so an int8 variant needs no new ranges: its head is float, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cascade.arrays import Float32s, Float64s, Floats
from cascade.errors import BundleError

__all__ = ["HEAD_INPUT", "Head", "read_head", "replace_head", "tapped", "write_graph"]

#: Name of the output that `tapped` adds.
HEAD_INPUT: Final = "cascade_head_input"
_LOGITS: Final = "logits"


@dataclass(frozen=True, slots=True)
class Head:
    """A linear layer.

    Attributes:
        weights: (K, D), one row per label.
        bias: (K,).
    """

    weights: Float64s
    bias: Float64s

    def logits(self, embedding: Floats) -> Float32s:
        """Return logits (N, K) of embeddings (N, D)."""
        return np.asarray(embedding @ self.weights.T + self.bias, dtype=np.float32)

    def stored(self) -> Head:
        """Return the head as half precision keeps it, so that every variant of a stage has the same one."""
        return Head(
            self.weights.astype(np.float16).astype(np.float64),
            self.bias.astype(np.float32).astype(np.float64),
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """Where the head is: its node, what it reads, and the names of weights and bias."""

    node: onnx.NodeProto
    source: str
    weights: str
    bias: str
    transposed: bool  # weights are (K, D) rather than (D, K)


def read_head(model: onnx.ModelProto, where: str) -> Head:
    """Return the head of an image stage.

    Args:
        model: the graph.
        where: its file, for the message.

    Raises:
        BundleError: when the logits do not come from one linear layer.
    """
    found = _find(model, where)
    weights = _constant(model, found.weights, where)
    bias = _constant(model, found.bias, where)
    return Head(weights if found.transposed else weights.T, bias)


def tapped(model: onnx.ModelProto, where: str) -> bytes:
    """Return the graph with one output more, `HEAD_INPUT` (N, D): what the head reads.

    Raises:
        BundleError: when the logits do not come from one linear layer.
    """
    found = _find(model, where)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.node.append(helper.make_node("Identity", [found.source], [HEAD_INPUT]))
    width = read_head(model, where).weights.shape[1]
    copy.graph.output.append(helper.make_tensor_value_info(HEAD_INPUT, TensorProto.FLOAT, ["N", width]))
    return copy.SerializeToString()


def replace_head(
    model: onnx.ModelProto, head: Head, where: str, *, outputs: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Return a copy of the graph with another head; it may have more or fewer labels.

    Args:
        model: the graph; not changed.
        head: see `Head.stored`.
        where: the file, for messages.
        outputs: the outputs to keep; None keeps all.

    Raises:
        BundleError: when the logits do not come from one linear layer.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    found = _find(copy, where)
    half = any(tensor.name == f"{found.weights}.half" for tensor in copy.graph.initializer)
    weights = head.weights if found.transposed else head.weights.T
    if half:
        _set(copy, f"{found.weights}.half", weights.astype(np.float16))
    else:
        _set(copy, found.weights, weights.astype(np.float32))
    _set(copy, found.bias, head.bias.astype(np.float32))
    if outputs is not None:
        kept = [value for value in copy.graph.output if value.name in outputs]
        del copy.graph.output[:]
        copy.graph.output.extend(kept)
    for value in copy.graph.output:
        if value.name == _LOGITS:
            value.type.tensor_type.shape.dim[-1].dim_value = len(head.bias)
    stale = {_LOGITS, found.weights, found.bias}
    informed = [value for value in copy.graph.value_info if value.name not in stale]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(informed)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def write_graph(model: onnx.ModelProto, path: Path, *, stage: str, labels: Sequence[str], title: str) -> str:
    """Write the graph of an image stage and return its SHA-256 in lower-case hex.

    Args:
        model: its metadata is changed in place: stage, labels and bundle.
        path: the file.
        stage: its name.
        labels: one per logit.
        title: name and version of the bundle.
    """
    facts = {fact.key: fact.value for fact in model.metadata_props}
    facts |= {"cascade.stage": stage, "cascade.labels": json.dumps(list(labels)), "cascade.bundle": title}
    del model.metadata_props[:]
    helper.set_model_props(model, facts)
    content = model.SerializeToString(deterministic=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _find(model: onnx.ModelProto, where: str) -> _Found:
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get(_LOGITS)
    if node is not None and node.op_type == "Gemm" and len(node.input) == 3:
        facts = {fact.name: helper.get_attribute_value(fact) for fact in node.attribute}
        plain = facts.get("alpha", 1.0) == facts.get("beta", 1.0) == 1.0 and not facts.get("transA", 0)
        if plain:
            return _Found(node, node.input[0], node.input[1], node.input[2], bool(facts.get("transB", 0)))
    if node is not None and node.op_type == "Add":
        product, bias = makers.get(node.input[0]), node.input[1]
        if product is not None and product.op_type == "MatMul":
            return _Found(product, product.input[0], product.input[1], bias, transposed=False)
    raise BundleError(
        f"{where}: its logits do not come from one linear layer, so nothing can be learned on top of it; "
        "train a bundle with: cascade train"
    )


def _constant(model: onnx.ModelProto, name: str, where: str) -> Float64s:
    for tensor in model.graph.initializer:
        if tensor.name in (name, f"{name}.half"):
            return numpy_helper.to_array(tensor).astype(np.float64)
    raise BundleError(f"{where}: {name} is no constant of the graph, so its head cannot be replaced")


def _set(model: onnx.ModelProto, name: str, values: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
            return
    raise BundleError(f"{name} is no constant of the graph")
