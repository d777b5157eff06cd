"""Builds one ONNX model that holds the whole decision of a bundle: from pixels to an answer.

    image -> reduction, resize -> general -> scope, router -> experts (in `If`, skipped unless asked) ->
    arbiter -> policy -> answer

The outputs are those of `cascade.Cascade` for the same decoded photo. `docs/embedding/single-file.md`
explains how the model is used; what its numbers mean stands in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import EXACT, FEATURES, Expert, Stage
from cascade.errors import BundleError
from cascade.export.nodes import BOOL, DOUBLE, FLOAT, INT64, UINT8, Nodes
from cascade.export.pixels import add_prepare, add_reduction
from cascade.imaging.preprocessing import InputSpec
from cascade.labels import UNKNOWN
from cascade.policy import REASONS

__all__ = ["FORMAT", "answers", "input_names", "single_file"]

#: Version of the names and meanings of inputs, outputs and metadata. It rises when a program that reads the
#: present ones would break.
FORMAT: Final = 1
_NO_LIMIT: Final = float("inf")


def answers(bundle: Bundle) -> list[str]:
    """Return what the output `answer` counts: labels, then parents, then "unknown"."""
    return [*bundle.tree.labels, *bundle.tree.parents, UNKNOWN]


def input_names(bundle: Bundle) -> dict[InputSpec, str]:
    """Return specification -> input of the form that takes prepared pixels, the general's first."""
    specs = dict.fromkeys(stage.input for stage in bundle.image_stages)
    return {spec: f"image_{number}" if number else "image" for number, spec in enumerate(specs)}


def single_file(bundle: Bundle, *, prepared: bool = False, variant: str = EXACT) -> onnx.ModelProto:
    """Build the model.

    Args:
        bundle: to take the graphs, labels and operating points from.
        prepared: False takes one photo of any size, uint8 (H, W, 3); True takes batches of prepared
            pixels, uint8 (N, height, width, 3), see `input_names`.
        variant: of the bundle's image stages.

    Returns:
        A checked model, opset 18, standard operators.

    Raises:
        BundleError: when a graph is missing, damaged or cannot be put into one model.
        UsageError: when the bundle has no such variant, or is fed in a way that ONNX cannot repeat.
    """
    chosen = bundle.with_variant(variant)
    g = Nodes("cascade_")
    if prepared:
        pixels = dict(input_names(chosen))
        inputs = [
            helper.make_tensor_value_info(name, UINT8, ["N", spec.height, spec.width, 3])
            for spec, name in pixels.items()
        ]
        decision = _Decision(chosen, g, pixels, "")
    else:
        inputs = [helper.make_tensor_value_info("image", UINT8, ["H", "W", 3])]
        reduced = add_reduction(g, "image", chosen.decode_target, chosen.reducing_gap)
        general = chosen.general.input
        decision = _Decision(chosen, g, {general: add_prepare(g, reduced, general)}, reduced)
    decision.build()
    point = chosen.operating_points["default"]
    limit = point.scope_threshold
    defaults = {
        "cost_weight": np.array([point.cost_weight]),
        "leaf_threshold": np.array([point.leaf_threshold]),
        "parent_threshold": np.array([point.parent_threshold]),
        "scope_threshold": np.array([_NO_LIMIT if limit is None else limit]),
    }
    inputs += [helper.make_tensor_value_info(name, DOUBLE, [1]) for name in defaults]
    batch = "N" if prepared else 1
    outputs = [
        helper.make_tensor_value_info(name, kind, [batch, *more])
        for name, kind, more in (
            ("answer", INT64, []),
            ("confidence", FLOAT, []),
            ("reason", INT64, []),
            ("probabilities", FLOAT, [len(chosen.tree.labels)]),
            ("asked", BOOL, [len(chosen.experts)]),
            ("score", FLOAT, []),
        )
    ]
    return g.model("cascade", inputs, outputs, defaults, _metadata(bundle, variant, prepared))


class _Decision:
    """Adds every stage and the policy; `pixels` is specification -> uint8 (N, H, W, 3)."""

    def __init__(self, bundle: Bundle, g: Nodes, pixels: dict[InputSpec, str], reduced: str) -> None:
        self._bundle, self._g, self._pixels, self._reduced = bundle, g, pixels, reduced

    def build(self) -> None:
        g, bundle = self._g, self._bundle
        general = self._include(g, bundle.general, {bundle.general.takes: self._pixels[bundle.general.input]})
        known = {"general_logits": general["logits"], "embedding": general["embedding"]}
        known |= {FEATURES: general[FEATURES]} if FEATURES in general else {}
        count = g("Shape", general["logits"], start=0, end=1)
        score = g("Expand", g.constant([0.0]), count)
        if bundle.scope is not None:
            score = g("Reshape", self._include(g, bundle.scope, known)["score"], g.constant([-1], np.int64))
        deferred = self._deferred(known, count)
        feeds = dict(known)
        if bundle.experts:
            feeds["asked"] = g("Cast", deferred, to=FLOAT)
            columns = [
                g("Gather", deferred, g.constant(column, np.int64), axis=1)
                for column in range(len(bundle.experts))
            ]
            self._prepare_for_experts(columns)
            for expert, mine in zip(bundle.experts, columns, strict=True):
                feeds[f"{expert.name}_logits"] = self._expert(expert, mine, known, count)
        probabilities = self._include(g, bundle.arbiter, feeds)["probabilities"]
        self._policy(probabilities, score)
        for name, value in (("probabilities", probabilities), ("asked", deferred), ("score", score)):
            g.named(value, name)

    def _deferred(self, known: Mapping[str, str], count: str) -> str:
        """Return bool (N, E): the router's gain is worth the cost."""
        g, bundle = self._g, self._bundle
        if bundle.router is None:
            shape = g("Concat", count, g.constant([0], np.int64), axis=0)
            return g("Cast", g("ConstantOfShape", shape), to=BOOL)
        gain = g("Cast", self._include(g, bundle.router, known)["gain"], to=DOUBLE)
        price = g("Mul", g.constant([e.cost for e in bundle.experts], np.float64), "cost_weight")
        return g("Greater", gain, price)

    def _prepare_for_experts(self, columns: list[str]) -> None:
        """Resize for experts that want other pixels than the general model, if one of them is asked."""
        g, bundle = self._g, self._bundle
        wanting: dict[InputSpec, list[str]] = {}
        for expert, mine in zip(bundle.experts, columns, strict=True):
            if expert.takes != FEATURES and expert.input not in self._pixels:
                wanting.setdefault(expert.input, []).append(mine)
        for spec, theirs in wanting.items():
            yes, no = g.inner(), g.inner()
            ready = add_prepare(yes, self._reduced, spec)
            nothing = no.constant(np.zeros((1, spec.height, spec.width, 3)), np.uint8)
            self._pixels[spec] = g.choose(_any(g, theirs), (yes, ready), (no, nothing), UINT8)

    def _expert(self, expert: Expert, mine: str, known: Mapping[str, str], count: str) -> str:
        """Return the logits of an expert, (N, K + 1), zero where it was not asked."""
        g = self._g
        yes, no = g.inner(), g.inner()
        taken = known[FEATURES] if expert.takes == FEATURES else self._pixels[expert.input]
        width = len(expert.labels)
        if self._reduced:  # one photo
            logits = self._include(yes, expert, {expert.takes: taken})["logits"]
        else:
            rows = yes("Reshape", yes("NonZero", mine), yes.constant([-1], np.int64))
            some = self._include(yes, expert, {expert.takes: yes("Gather", taken, rows)})["logits"]
            places = yes("Unsqueeze", rows, yes.constant([1], np.int64))
            logits = yes("ScatterND", _zeros(yes, count, width), places, some)
        return g.choose(_any(g, [mine]), (yes, logits), (no, _zeros(no, count, width)), FLOAT)

    def _policy(self, probabilities: str, score: str) -> None:
        """Add `cascade.policy`: an index of `answers`, its confidence, and why."""
        g, tree = self._g, self._bundle.tree
        leaves = g("Cast", probabilities, to=DOUBLE)
        parents = g("MatMul", leaves, g.constant(tree.membership, np.float64))
        axis = g.constant([1], np.int64)
        leaf, parent = (g("ArgMax", values, axis=1, keepdims=0) for values in (leaves, parents))
        leaf_confidence, parent_confidence = (
            g("ReduceMax", values, axis, keepdims=0) for values in (leaves, parents)
        )
        inside = g("LessOrEqual", g("Cast", score, to=DOUBLE), "scope_threshold")  # false for nan
        is_leaf = g("GreaterOrEqual", leaf_confidence, "leaf_threshold")
        is_parent = g("GreaterOrEqual", parent_confidence, "parent_threshold")
        unknown = g.constant([len(answers(self._bundle)) - 1], np.int64)
        broad = g("Add", parent, g.constant([len(tree.labels)], np.int64))
        found = g("Where", is_leaf, leaf, g("Where", is_parent, broad, unknown))
        keys = list(REASONS)
        why = {key: g.constant([number], np.int64) for number, key in enumerate(keys)}
        reason = g("Where", is_leaf, why["leaf"], g("Where", is_parent, why["parent"], why["doubtful"]))
        is_broad = g("And", inside, g("And", g("Not", is_leaf), is_parent))
        confidence = g("Where", is_broad, parent_confidence, leaf_confidence)
        confidence = g("Min", confidence, g.constant([1.0], np.float64))
        g.named(g("Where", inside, found, unknown), "answer")
        g.named(g("Cast", confidence, to=FLOAT), "confidence")
        g.named(g("Where", inside, reason, why["out_of_scope"]), "reason")

    def _include(self, g: Nodes, stage: Stage, known: Mapping[str, str]) -> dict[str, str]:
        """Add the graph of a stage, fed with whatever it takes of what is known."""
        bundle = self._bundle
        bundle.check_hash(stage)
        path = bundle.folder / stage.file
        try:
            model = onnx.load(path)
            taken = {item.name: known[item.name] for item in model.graph.input}
            return g.include(model, stage.name, taken)
        except KeyError as error:
            raise BundleError(f"{path}: takes {error}, which no earlier stage gives") from None
        except ValueError as error:
            raise BundleError(f"{path}: {error}; export it again with this cascade") from None


def _any(g: Nodes, columns: list[str]) -> str:
    """Return one bool: whether any photo is asked about in any of the columns, bool (N,) each."""
    both = g("Concat", *columns, axis=0)
    return g("Cast", g("ReduceMax", g("Cast", both, to=FLOAT), keepdims=0), to=BOOL)


def _zeros(g: Nodes, count: str, width: int) -> str:
    return g("ConstantOfShape", g("Concat", count, g.constant([width], np.int64), axis=0))


def _metadata(bundle: Bundle, variant: str, prepared: bool) -> dict[str, str]:
    manifest = bundle.to_dict()
    metadata: dict[str, Any] = {
        "cascade.format": FORMAT,
        "cascade.bundle": f"{bundle.name} {bundle.version}",
        "cascade.variant": variant,
        "answers": answers(bundle),
        "reasons": list(REASONS),
        "labels": manifest["labels"],
        "experts": [{"name": e.name, "labels": list(e.labels), "cost": e.cost} for e in bundle.experts],
        "operating_points": manifest["operating_points"],
        "promise": manifest["promise"],
        "budget": manifest["budget"],
        "label_sets": manifest["label_sets"],
    }
    if prepared:
        metadata["inputs"] = {name: spec.to_dict() for spec, name in input_names(bundle).items()}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
