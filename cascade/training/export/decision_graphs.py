"""Builds the two small graphs of a bundle, `router.onnx` and `arbiter.onnx`.

Both are plain ONNX operators, so any runtime in any language can run them.

Arbiter, for a photo and a label l (sums run over the experts e that were asked):

    log p(l)   = log_softmax(general_logits / T)
    log q_e    = log_softmax(e_logits / T_e)                    over e's labels and "not mine"
    log r_e(l) = log q_e(l)                                     if l is one of e's labels
               = log q_e(not mine) + log p(l) - log P_e         otherwise, P_e = sum of p over foreign labels
    z(l)       = log p(l) + sum_e asked_e (b_e log r_e(l) + c_e log p(l))
    m          = max softmax(z)
    probabilities = softmax(z exp(k0 + k1 m + k2 m^2))

A logarithmic opinion pool (Genest and Zidek 1986): an expert that says "not mine" leaves the photo to the
others, and one that was not asked has no influence. The last line is a temperature that depends on how sure
the pool is: one number for all leaves the middle overconfident when it suits the ends. It changes no order
of labels. With nobody asked the arbiter is such a temperature scaling of the general model.

Router, for an expert e:

    p       = softmax(general_logits / T)
    gain(e) = a_e (1 - max p) P_e'                              P_e' = sum of p over e's labels

The general model is wrong, and the photo is one of the expert's: two chances that are read off the calibrated
general model. What the expert then brings, a_e, is fitted: nats of log likelihood of the right label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from cascade.arrays import Float64s
from cascade.export.nodes import FLOAT, Nodes

__all__ = [
    "ArbiterParameters",
    "RouterParameters",
    "arbiter_graph",
    "decision_graph",
    "router_graph",
]

_IR_VERSION: Final = 8  # readable by every onnxruntime since 1.14
_TINY: Final = 1e-6


@dataclass(frozen=True, slots=True)
class ArbiterParameters:
    """What the arbiter was fitted to; names as in the module's formulas.

    Attributes:
        temperature: T.
        expert_temperature: (E,), T_e.
        expert_weight: (E,), b_e.
        general_shift: (E,), c_e.
        sharpness: (3,), k0, k1, k2.
    """

    temperature: float
    expert_temperature: Float64s
    expert_weight: Float64s
    general_shift: Float64s
    sharpness: Float64s = field(default_factory=lambda: np.zeros(3))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON form."""
        return {
            "temperature": self.temperature,
            "expert_temperature": self.expert_temperature.tolist(),
            "expert_weight": self.expert_weight.tolist(),
            "general_shift": self.general_shift.tolist(),
            "sharpness": self.sharpness.tolist(),
        }


@dataclass(frozen=True, slots=True)
class RouterParameters:
    """What the router was fitted to; names as in the module's formulas.

    Attributes:
        temperature: T, of the general model; the same as the arbiter's.
        worth: (E,), a_e, in 0..1.
    """

    temperature: float
    worth: Float64s


def decision_graph(
    nodes: Nodes,
    name: str,
    inputs: Mapping[str, int],
    output: tuple[str, int],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Return the checked graph of these nodes; every input and the output is float32 (N, width)."""
    given, found = (
        [helper.make_tensor_value_info(tensor, FLOAT, ["N", width]) for tensor, width in side]
        for side in (inputs.items(), [output])
    )
    model = nodes.model(name, given, found, {}, metadata, ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def arbiter_graph(
    parameters: ArbiterParameters,
    labels: Sequence[str],
    experts: Mapping[str, Sequence[str]],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Build `arbiter.onnx`.

    Args:
        parameters: fitted numbers.
        labels: the L labels of the general model.
        experts: expert -> its labels, without "not mine".
        metadata: goes into the graph's metadata_props.
    """
    g = Nodes()
    log_p = g("LogSoftmax", g("Div", "general_logits", g.constant(parameters.temperature)), axis=1)
    inputs = {"general_logits": len(labels)}
    total = log_p
    for column, (name, own) in enumerate(experts.items()):
        inputs[f"{name}_logits"] = len(own) + 1
        log_q = g(
            "LogSoftmax",
            g("Div", f"{name}_logits", g.constant(parameters.expert_temperature[column])),
            axis=1,
        )
        # Position of every label among the expert's logits; foreign labels all read "not mine".
        position = [list(own).index(label) if label in own else len(own) for label in labels]
        foreign = np.array([label not in own for label in labels], dtype=np.float32)
        spread = g("Gather", log_q, g.constant(position, np.int64), axis=1)  # (N, L)
        mass = g("MatMul", g("Exp", log_p), g.constant(foreign[:, None]))  # (N, 1): P_e
        share = g("Sub", log_p, g("Log", g("Max", mass, g.constant(_TINY))))
        log_r = g("Add", spread, g("Mul", share, g.constant(foreign[None, :])))
        vote = g(
            "Add",
            g("Mul", log_r, g.constant(parameters.expert_weight[column])),
            g("Mul", log_p, g.constant(parameters.general_shift[column])),
        )
        deferred = g("Gather", "asked", g.constant([column], np.int64), axis=1)  # (N, 1)
        total = g("Add", total, g("Mul", vote, deferred))
    if experts:
        inputs["asked"] = len(experts)
    sure = g("ReduceMax", g("Softmax", total, axis=1), g.constant([1], np.int64), keepdims=1)
    k0, k1, k2 = (g.constant(value) for value in parameters.sharpness)
    sharpness = g("Exp", g("Add", k0, g("Mul", sure, g("Add", k1, g("Mul", sure, k2)))))
    g("Softmax", g("Mul", total, sharpness), output="probabilities", axis=1)
    return decision_graph(g, "arbiter", inputs, ("probabilities", len(labels)), metadata)


def router_graph(
    parameters: RouterParameters,
    labels: Sequence[str],
    experts: Mapping[str, Sequence[str]],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Build `router.onnx`.

    Args:
        parameters: fitted numbers.
        labels: the L labels of the general model.
        experts: expert -> its labels, without "not mine".
        metadata: goes into the graph's metadata_props.
    """
    g = Nodes()
    p = g("Softmax", g("Div", "general_logits", g.constant(parameters.temperature)), axis=1)
    doubt = g("Sub", g.constant(1.0), g("ReduceMax", p, g.constant([1], np.int64), keepdims=1))
    # (L, E): a_e where the label is one of the expert's, else 0.
    mine = np.array([[label in own for own in experts.values()] for label in labels])
    mended = g("MatMul", p, g.constant(mine * parameters.worth))
    g("Mul", doubt, mended, output="gain")
    return decision_graph(g, "router", {"general_logits": len(labels)}, ("gain", len(experts)), metadata)
