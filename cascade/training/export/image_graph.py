"""Exports a trained network as an ONNX image stage.

image uint8 (N, H, W, 3) RGB -> logits float32 (N, K); of the general model also embedding (N, D) and, if
                                experts take them, features (N, ...): what its frozen part gives
features -> logits              of an expert whose frozen part is the general model's
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cascade.bundle.stage import FEATURES, IMAGE
from cascade.export.nodes import OPSET
from cascade.imaging.preprocessing import InputSpec
from cascade.training.fit.backbone import Network

__all__ = ["export_graph", "export_stage"]


#: Tensors smaller than this stay float32: biases and scales cost nothing and are sensitive.
_SMALL = 1024


class _ImageStage(nn.Module):
    """The contract around a network: uint8 pixels with channels last, normalisation inside."""

    def __init__(self, network: Network, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(outputs)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network.frozen(image.permute(0, 3, 1, 2))
        embedding = self.network.trained(features)
        given = {"logits": self.network.head(embedding), "embedding": embedding, "features": features}
        return tuple(given[name] for name in self.outputs)


class _FeatureStage(nn.Module):
    """An expert behind the general model's frozen part."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network.head(self.network.trained(features))
        return logits


def export_stage(
    network: Network,
    spec: InputSpec,
    *,
    outputs: Sequence[str],
    metadata: Mapping[str, str],
    takes: str = IMAGE,
    half: bool = True,
) -> onnx.ModelProto:
    """Export an image stage.

    Weights are stored in half precision and cast back where they are used, which onnxruntime does once,
    when it loads the graph: half the size, the same speed, and differences far below one calibration step.

    Args:
        network: trained; switched to evaluation mode.
        spec: fixes height and width.
        outputs: ``"logits"`` and, of a stage that takes an image, ``"embedding"`` and ``"features"``.
        metadata: goes into the graph's metadata_props.
        takes: `cascade.bundle.stage.IMAGE` or `cascade.bundle.stage.FEATURES`.
        half: False keeps float32 weights, which quantisation starts from.
    """
    network.eval()
    example = torch.zeros(2, spec.height, spec.width, 3, dtype=torch.uint8)
    stage: nn.Module = _ImageStage(network, outputs)
    if takes == FEATURES:
        stage = _FeatureStage(network)
        with torch.inference_mode():
            example = network.frozen(example.permute(0, 3, 1, 2)).clone()
    model = export_graph(stage.eval(), example, takes, outputs)
    if half:
        _store_half(model)
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def export_graph(
    module: nn.Module, example: torch.Tensor, name: str, outputs: Sequence[str]
) -> onnx.ModelProto:
    """Export any module of one input, with a free batch size.

    Args:
        module: in evaluation mode.
        example: an input of at least two rows.
        name: of the input.
        outputs: names of the outputs.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter, none of ours to act on
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[name],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes source lines and paths of the machine for every node; a bundle has no use for them.
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


def _store_half(model: onnx.ModelProto) -> None:
    """Keep large float32 weights as float16 with a cast behind each."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALL or np.abs(values).max() > 60_000:
            continue
        name = tensor.name
        stored = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        tensor.CopyFrom(stored)
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
