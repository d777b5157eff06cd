"""Collects ONNX nodes, constants and whole stage graphs under unique names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

__all__ = ["IR_VERSION", "OPSET", "Nodes"]

OPSET: Final = 18
#: The newest format that onnxruntime 1.20 reads; `onnx` itself would write whatever is its own newest.
IR_VERSION: Final = 10


class Nodes:
    """The nodes of one graph, or of one branch of an `If`, in order.

    Args:
        prefix: of every name that is made here. Two graphs of one model must not share it: names of a
            branch may not hide those of the graph around it.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._branches = 0

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node of one output, called ``output`` if that is given, and return the output's name.

        Every node has a name: onnxruntime 1.20 does not load a model in which several `Gather` have none.
        """
        name = output or f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant and return its name."""
        name = f"{self.prefix}constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def named(self, value: str, name: str) -> str:
        """Give a value the name of an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}_identity"))
        return name

    def include(self, model: onnx.ModelProto, prefix: str, feeds: Mapping[str, str]) -> dict[str, str]:
        """Add a whole model; return its outputs: their names in the model -> their names here.

        Args:
            model: of the same opset; its weights become constants of this graph.
            prefix: of all its names.
            feeds: input of the model -> value of this graph.

        Raises:
            ValueError: when its opset is another one, or it brings functions of its own.
        """
        opsets = {(item.domain, item.version) for item in model.opset_import}
        if opsets != {("", OPSET)} or model.functions:
            raise ValueError(f"the graph uses {sorted(opsets)}, not ONNX opset {OPSET} alone")
        prefix = f"{self.prefix}{prefix}_"
        graph = compose.add_prefix(model, prefix).graph
        for name, value in feeds.items():
            self.nodes.append(
                helper.make_node("Identity", [value], [prefix + name], name=f"{prefix}{name}_identity")
            )
        for number, node in enumerate(graph.node):
            node.name = node.name or f"{prefix}{node.op_type.lower()}_{number}"
            self.nodes.append(node)
        self._constants.extend(graph.initializer)
        return {item.name.removeprefix(prefix): item.name for item in graph.output}

    def inner(self) -> Nodes:
        """Return an empty branch, for `choose`."""
        self._branches += 1
        return Nodes(f"{self.prefix}branch_{self._branches}_")

    def choose(self, condition: str, then: tuple[Nodes, str], otherwise: tuple[Nodes, str], kind: int) -> str:
        """Add an `If` and return its output; only the branch that is taken is computed.

        Args:
            condition: bool, one element.
            then: the nodes of the branch, from `inner`, and the value that it gives.
            otherwise: likewise.
            kind: element type of the value, of `onnx.TensorProto`.
        """
        branches = {"then_branch": then, "else_branch": otherwise}
        return self(
            "If", condition, **{key: nodes._branch(value, kind) for key, (nodes, value) in branches.items()}
        )

    def _branch(self, value: str, kind: int) -> onnx.GraphProto:
        # A value of the outer graph cannot be a branch's output itself, so an Identity always stands between.
        output = self.named(value, f"{self.prefix}out")
        shape = helper.make_tensor_value_info(output, kind, None)
        return helper.make_graph(self.nodes, f"{self.prefix}graph", [], [shape], self._constants)

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        defaults: Mapping[str, Any],
        metadata: Mapping[str, str],
        *,
        ir_version: int = IR_VERSION,
    ) -> onnx.ModelProto:
        """Return the checked model.

        Args:
            name: of the graph.
            inputs: required ones first.
            outputs: names given by `named`.
            defaults: optional input -> the value that it has when nothing is fed.
            metadata: goes into the model's metadata_props.
            ir_version: of the format.
        """
        optional = [numpy_helper.from_array(np.asarray(value), key) for key, value in defaults.items()]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, [*self._constants, *optional])
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=ir_version,
            producer_name="cascade",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model


#: Element types by the names that this package uses.
BOOL, DOUBLE, FLOAT, INT64, UINT8 = (
    TensorProto.BOOL,
    TensorProto.DOUBLE,
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.UINT8,
)
