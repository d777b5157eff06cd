"""The single file answers as the package does, for photos of any size, and really skips experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COLOURS
from PIL import Image

from cascade import Bundle, Cascade
from cascade.bundle.graph_safety import check_graph
from cascade.errors import UsageError
from cascade.imaging.decoding import load_image
from cascade.imaging.preprocessing import InputSpec, prepare
from cascade.onnx_runtime import ort

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'cascade-vision[export]'")
from onnx import TensorProto, helper

from cascade.export.nodes import Nodes
from cascade.export.pixels import add_prepare, add_reduction
from cascade.export.single_file import single_file


def _open(model: Any) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, **feeds: Any) -> dict[str, Any]:
    names = [item.name for item in session.get_outputs()]
    out = dict(zip(names, session.run(names, feeds), strict=True))
    metadata = session.get_modelmeta().custom_metadata_map
    out["label"] = [json.loads(metadata["answers"])[i] for i in out["answer"]]
    out["why"] = [json.loads(metadata["reasons"])[i] for i in out["reason"]]
    return out


@pytest.fixture(scope="module")
def two_experts(two_expert_bundle: Path) -> ort.InferenceSession:
    return _open(single_file(Bundle.load(two_expert_bundle)))


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    """Real photographs in sizes below, at and above the limits of reduction; some odd, some thin."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    sizes = [(160, 160), (208, 208), (224, 224), (231, 173), (173, 231), (320, 240), (479, 481), (480, 480)]
    sizes += [
        (671, 900),
        (672, 672),
        (673, 1001),
        (1001, 673),
        (90, 700),
        (1345, 1500),
        (2003, 1361),
        (2700, 2699),
    ]
    photos = []
    for number, size in enumerate(sizes):
        for name in ("coffee", "rocket", "chelsea", "astronaut")[number % 2 :: 2]:
            photos.append(
                np.asarray(Image.fromarray(getattr(data, name)()).resize(size, Image.Resampling.BICUBIC))
            )
    return photos


def test_it_answers_as_the_shipped_bundle_does(shipped_bundle: Path, samples: list[np.ndarray]) -> None:
    bundle = Bundle.load(shipped_bundle)
    session, cascade = _open(single_file(bundle)), Cascade(bundle, variant="exact", top_k=99)
    differences = []
    for pixels in samples:
        expected, found = cascade.predict(pixels), _run(session, image=pixels)
        assert (found["label"], found["why"]) == ([expected.label], [expected.reason]), pixels.shape
        assert [bool(x) for x in found["asked"][0]] == [
            e.name in [o.name for o in expected.experts] for e in bundle.experts
        ]
        differences.append(abs(float(found["confidence"][0]) - expected.confidence))
    # A dozen pixels of a photo come out one grey level apart, see `cascade.export.pixels`.
    assert np.quantile(differences, 0.9) <= 1e-3
    assert max(differences) <= 3e-3


def test_prepared_pixels_give_the_same_to_the_last_digits(
    shipped_bundle: Path, samples: list[np.ndarray]
) -> None:
    bundle = Bundle.load(shipped_bundle)
    cascade = Cascade(bundle, variant="exact")
    prepared = cascade.prepare_photos(samples[:9])
    expected = cascade.run_stages(prepared.inputs)
    session = _open(single_file(bundle, prepared=True))
    inputs = json.loads(session.get_modelmeta().custom_metadata_map["inputs"])
    found = _run(session, **{name: prepared.inputs[InputSpec(**spec)] for name, spec in inputs.items()})
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(found["asked"], expected.deferred)
    np.testing.assert_allclose(found["score"], expected.scope_score, rtol=1e-4)


def test_thresholds_and_the_price_of_asking_are_inputs(
    two_expert_bundle: Path, two_experts: ort.InferenceSession
) -> None:
    bundle = Bundle.load(two_expert_bundle)
    photo = np.full((40, 50, 3), COLOURS["bedroom"][1], np.uint8)
    for ask, weight in (("never", np.inf), ("always", -np.inf)):
        expected = Cascade(bundle, ask=ask).predict(photo)
        found = _run(two_experts, image=photo, cost_weight=np.array([weight]))
        assert found["asked"].all() == (ask == "always")
        assert found["asked"].any() == (ask == "always")
        assert float(found["confidence"][0]) == pytest.approx(expected.confidence, abs=1e-5)
    doubtful = _run(
        two_experts, image=photo, leaf_threshold=np.array([1.1]), parent_threshold=np.array([1.1])
    )
    assert (doubtful["label"], doubtful["why"]) == (["unknown"], ["doubtful"])
    broad = _run(two_experts, image=photo, leaf_threshold=np.array([1.1]), parent_threshold=np.array([0.0]))
    assert (broad["label"], broad["why"]) == (["indoor"], ["parent"])
    out = _run(two_experts, image=photo, scope_threshold=np.array([-np.inf]))
    assert (out["label"], out["why"]) == (["unknown"], ["out_of_scope"])


def test_every_row_of_a_batch_is_answered_on_its_own(two_expert_bundle: Path) -> None:
    bundle = Bundle.load(two_expert_bundle)
    cascade = Cascade(bundle, variant="exact")
    colours = np.random.default_rng(2).integers(0, 256, (24, 3))
    photos = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    inputs = cascade.prepare_photos(photos).inputs
    expected = cascade.run_stages(inputs)
    assert 0 < expected.deferred.mean() < 1
    found = _run(_open(single_file(bundle, prepared=True)), image=next(iter(inputs.values())))
    np.testing.assert_array_equal(found["asked"], expected.deferred)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-5)
    assert found["label"] == [cascade.predict(photo).label for photo in photos]


def test_an_expert_that_is_not_asked_does_not_run(two_expert_bundle: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 3
    options.profile_file_prefix = str(tmp_path / "profile")
    model = single_file(Bundle.load(two_expert_bundle))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    photo = np.zeros((40, 50, 3), np.uint8)
    session.run(None, {"image": photo, "cost_weight": np.array([np.inf])})
    ran = [event["name"] for event in json.loads(Path(session.end_profiling()).read_text())]
    assert not [name for name in ran if "_rooms_" in name or ("_more_" in name and "arbiter" not in name)]


def test_a_bundle_without_experts_is_one_file_too(expertless_bundle: Path) -> None:
    bundle = Bundle.load(expertless_bundle)
    photo = np.full((40, 50, 3), COLOURS["forest"][1], np.uint8)
    expected, found = Cascade(bundle).predict(photo), _run(_open(single_file(bundle)), image=photo)
    assert found["label"] == [expected.label]
    assert found["asked"].shape == (1, 0)


def test_it_is_a_graph_that_our_own_loader_would_accept(two_expert_bundle: Path) -> None:
    model = single_file(Bundle.load(two_expert_bundle))
    check_graph(model.SerializeToString(), "single")
    assert model.ir_version == 10
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    unnamed = [node.op_type for node in _all_nodes(model.graph) if not node.name]
    assert not unnamed  # onnxruntime 1.20 does not load some of those


def _all_nodes(graph: Any) -> list[Any]:
    inner = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*graph.node, *(node for one in inner for node in _all_nodes(one))]


def _pixels_session(spec: InputSpec) -> ort.InferenceSession:
    g = Nodes("x_")
    planes = add_reduction(g, "image", spec.decode_target, spec.reducing_gap)
    g.named(planes, "reduced")
    g.named(add_prepare(g, planes, spec), "prepared")
    value = helper.make_tensor_value_info
    inputs = [value("image", TensorProto.UINT8, ["H", "W", 3])]
    outputs = [
        value("reduced", TensorProto.FLOAT, [1, 3, "h", "w"]),
        value("prepared", TensorProto.UINT8, [1, "a", "b", 3]),
    ]
    return _open(g.model("pixels", inputs, outputs, {}, {}))


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(32, 32, reducing_gap=1.5),
        InputSpec(48, 32, interpolation="bilinear"),
        InputSpec(32, 32, crop="center", crop_fraction=0.875),
        InputSpec(40, 24, crop="center", crop_fraction=0.9, reducing_gap=1.0),
    ],
)
def test_pixels_are_those_of_the_package(spec: InputSpec) -> None:
    session = _pixels_session(spec)
    random = np.random.default_rng(1)
    sizes = [
        (32, 32),
        (33, 47),
        (95, 96),
        (96, 96),
        (97, 131),
        (257, 191),
        (600, 401),
        (20, 300),
        (300, 20),
        (9, 7),
    ]
    for width, height in sizes:
        small = random.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        reduced, found = session.run(None, {"image": pixels})
        image = load_image(pixels, target=spec.decode_target, reducing_gap=spec.reducing_gap)
        np.testing.assert_array_equal(reduced[0].transpose(1, 2, 0), np.asarray(image))
        difference = np.abs(found[0].astype(int) - prepare(image, spec).astype(int))
        assert difference.max() <= 1, (width, height)
        # Weights of a bilinear kernel are round numbers, so its results lie between two levels more often.
        assert (difference > 0).mean() < (0.1 if spec.interpolation == "bilinear" else 0.01)


def test_an_interpolation_that_onnx_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="lanczos"):
        add_prepare(Nodes(""), "planes", InputSpec(32, 32, interpolation="lanczos"))


def test_graphs_of_another_opset_are_refused() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ValueError, match="opset 18"):
        Nodes("").include(model, "stage", {})
