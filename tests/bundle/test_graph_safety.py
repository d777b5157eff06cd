"""`cascade.bundle.graph_safety`: hostile graphs are refused before onnxruntime sees them, ordinary ones are
not."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from cascade.bundle import graph_safety as bundle_safety
from cascade.bundle.graph_safety import check_graph
from cascade.errors import BundleError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper


def model(nodes=None, initializers=(), *, domain="", opsets=None, **more):
    nodes = nodes or [helper.make_node("Relu", ["x"], ["y"], domain=domain)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=opsets or [helper.make_opsetid("", 18)], **more)


def external(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return tensor


def ones(name="w", size=(3,)):
    return numpy_helper.from_array(np.ones(size, dtype=np.float32), name)


def huge(name="w", size=(1 << 40,)):
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=size)


def body(*nodes, initializers=()):
    return helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["out"])],
        "body",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        list(initializers),
    )


def branch(graph):
    """If has two graphs inside, an ordinary one and this."""
    return [helper.make_node("If", ["c"], ["y"], then_branch=body(), else_branch=graph)]


def shape(*sizes):
    return numpy_helper.from_array(np.array(sizes, dtype=np.int64), "shape")


def nested(depth):
    graph = body()
    for _ in range(depth):
        graph = body(*branch(graph))
    return branch(graph)


def with_function():
    made = model()
    made.functions.append(
        helper.make_function(
            "", "Mine", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 18)]
        )
    )
    return made


HOSTILE = {
    "external initializer": (lambda: model(initializers=[external(ones())]), "tensors in other files"),
    "external entry alone": (
        lambda: model(initializers=[_without_location(external(ones()))]),
        "tensors in other files",
    ),
    "external in a constant": (
        lambda: model([helper.make_node("Constant", [], ["y"], value=external(ones()))]),
        "tensors in other files",
    ),
    "external in a branch": (
        lambda: model(branch(body(initializers=[external(ones())]))),
        "tensors in other files",
    ),
    "custom operator": (
        lambda: model(domain="evil.ops", opsets=[helper.make_opsetid("evil.ops", 1)]),
        r"not of the ONNX standard \('evil\.ops'\)",
    ),
    "custom operator in a branch": (
        lambda: model(branch(body(helper.make_node("Run", [], ["out"], domain="evil")))),
        "not of the ONNX standard",
    ),
    "a function": (with_function, "functions of its own"),
    "a loop": (
        lambda: model([helper.make_node("Loop", ["", "c", "x"], ["y"], body=body())]),
        "it has a loop",
    ),
    "a tensor without its data": (lambda: model(initializers=[huge()]), "does not fit into its"),
    "sizes that overflow": (
        lambda: model(initializers=[huge(size=(1 << 62, 1 << 62))]),
        "does not fit into its",
    ),
    "a negative size": (lambda: model(initializers=[huge(size=(-1,))]), "a tensor has the size"),
    "too much data": (
        lambda: model(initializers=[TensorProto(name="w", data_type=1, dims=(1,), raw_data=b"\0" * 4096)]),
        "does not fit into its",
    ),
    "a constant shape": (
        lambda: model([helper.make_node("ConstantOfShape", ["shape"], ["y"])], [shape(1 << 20, 1 << 20)]),
        "a ConstantOfShape asks for 1,099,511,627,776 elements",
    ),
    "a shape in a constant node": (
        lambda: model(
            [
                helper.make_node("Constant", [], ["shape"], value=shape(1 << 40)),
                helper.make_node("Expand", ["x", "shape"], ["y"]),
            ]
        ),
        "an? Expand asks for",
    ),
    "a sparse tensor": (
        lambda: model(
            [
                helper.make_node(
                    "Constant",
                    [],
                    ["y"],
                    sparse_value=helper.make_sparse_tensor(ones("v", (1,)), shape(5), [1 << 40]),
                )
            ]
        ),
        "a sparse tensor has the size",
    ),
    "nested too deep": (lambda: model(nested(20)), "nested more than 16 deep"),
    "too many operators": (
        lambda: model([helper.make_node("Relu", ["x"], ["y"])] * 1001),
        "more than 1,000 operators",
    ),
}


def _without_location(tensor):
    tensor.ClearField("data_location")
    return tensor


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused(name, monkeypatch):
    monkeypatch.setattr(bundle_safety, "MAX_NODES", 1000)
    make, said = HOSTILE[name]
    with pytest.raises(BundleError, match=said):
        check_graph(make().SerializeToString(), "g.onnx")


def test_ordinary_graphs_pass():
    kinds = [
        numpy_helper.from_array(np.ones((2, 3), dtype=kind), f"t{number}")
        for number, kind in enumerate(["f4", "f8", "f2", "u1", "i1", "i4", "i8", "?"])
    ]
    typed = helper.make_tensor("typed", TensorProto.INT64, [3], [1, -1, 300])
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [2], [1.0, 2.0])
    text = helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"b"])
    empty = numpy_helper.from_array(np.zeros((0, 4), dtype=np.float32), "empty")
    scalar = numpy_helper.from_array(np.float32(1), "scalar")
    made = model(
        [*branch(body()), helper.make_node("Reshape", ["x", "typed"], ["y"])],
        [*kinds, typed, floats, text, empty, scalar],
        opsets=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx", 18)],
    )
    check_graph(made.SerializeToString(), "g.onnx")


def test_the_graphs_of_bundles_pass(tiny_bundle):
    for path in sorted(tiny_bundle.glob("*.onnx")):
        check_graph(path.read_bytes(), path)


def test_the_shipped_graphs_pass_and_quickly(shipped_bundle):
    started = time.process_time()
    for path in sorted(shipped_bundle.glob("*.onnx")):
        check_graph(path.read_bytes(), path)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08", b"\xff" * 100, b"<html>" * 1000])
def test_what_is_no_graph(content):
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        check_graph(content, "g.onnx")


def test_damaged_graphs_end_in_an_answer():
    content = bytearray(model(branch(body()), [ones(), shape(1, 2)]).SerializeToString())
    chance = random.Random(3)
    for _ in range(3000):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        damaged = damaged[: chance.randrange(len(damaged)) + 1] if chance.random() < 0.2 else damaged
        try:
            check_graph(bytes(damaged), "g.onnx")
        except BundleError:
            continue


def test_a_hostile_bundle_is_refused_when_it_is_opened(tiny_bundle, tmp_path):
    import hashlib
    import json
    import shutil

    from cascade import Cascade

    folder = shutil.copytree(tiny_bundle, tmp_path / "evil")
    evil = onnx.load(folder / "general.onnx")
    external(evil.graph.initializer[0])
    content = evil.SerializeToString()
    (folder / "general.onnx").write_bytes(content)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["stages"]["general"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"general\.onnx: it keeps tensors in other files"):
        Cascade(folder)
