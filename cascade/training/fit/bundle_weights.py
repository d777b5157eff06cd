"""Takes the backbone of a finished bundle's general model, so that other networks can start from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from cascade.bundle.manifest import Bundle
from cascade.errors import RecipeError

__all__ = ["SHIPPED", "copy_backbone"]

#: Name that stands for the bundle that comes with the package.
SHIPPED: Final = "default"


def copy_backbone(model: nn.Module, bundle: str) -> None:
    """Give a timm model, in place, the convolutions of a bundle's general model.

    An exported graph has every batch norm folded into the convolution before it. So each convolution gets the
    folded kernel, and its batch norm becomes what adds the folded bias: the two together compute the same, to
    the half precision in which a bundle keeps its weights.

    Args:
        model: of the same name as the backbone of that general model; its classifier is left as it is.
        bundle: folder, or `SHIPPED`.

    Raises:
        BundleError: when there is no bundle.
        RecipeError: when the general model has another backbone.
    """
    found = Bundle.load(None if bundle == SHIPPED else Path(bundle))
    graph = onnx.load(found.folder / found.general.file).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    # Kernels in half precision are cast once.
    values |= {node.output[0]: values[node.input[0]] for node in graph.node if _is_stored_cast(node, values)}
    pairs = _convolutions(model)
    folded = [
        [numpy_helper.to_array(values[name]).astype(np.float32) for name in node.input[1:]]
        for node in graph.node
        if node.op_type == "Conv"
    ]
    shapes = [[tensor.shape for tensor in tensors] for tensors in folded]
    if shapes != [[tuple(conv.weight.shape), (conv.out_channels,)] for conv, _ in pairs]:
        raise RecipeError(
            f"backbone.weights: the general model of bundle {found.name} {found.version} ({found.folder}) "
            "has another backbone; name that one in backbone.name, or take other weights"
        )
    with torch.no_grad():
        for (conv, norm), (kernel, bias) in zip(pairs, folded, strict=True):
            conv.weight.copy_(torch.from_numpy(kernel))
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0)
            norm.weight.fill_(math.sqrt(1.0 + norm.eps))
            norm.bias.copy_(torch.from_numpy(bias))


def _is_stored_cast(node: onnx.NodeProto, values: dict[str, onnx.TensorProto]) -> bool:
    return node.op_type == "Cast" and node.input[0] in values


def _convolutions(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution with the batch norm that follows it, in the order in which they are run."""
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    last: nn.Conv2d | None = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            last = module
        elif isinstance(module, nn.BatchNorm2d) and last is not None:
            pairs.append((last, module))
            last = None
    return pairs
