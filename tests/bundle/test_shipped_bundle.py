"""The bundles of models/: whole, small, and giving their golden outputs, also in another implementation."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cascade import Bundle, Cascade
from cascade.bundle.stage import ImageStage
from cascade.imaging.decoding import load_image
from cascade.imaging.preprocessing import prepare
from cascade.onnx_runtime import ort

ROOT = Path(__file__).resolve().parents[2]
#: Folder of models/ -> its recipes, and the megabytes that it may have.
BUNDLES = {
    "default": (ROOT / "experts", 60),
    "nuts": (ROOT / "benchmarks" / "nuts", 25),
    "scene15": (ROOT / "benchmarks" / "scene15", 25),
    "vehicles": (ROOT / "benchmarks" / "vehicles", 25),
}


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    folder = ROOT / "models" / request.param
    if not folder.is_dir():
        pytest.skip(f"models/{request.param} is not in this checkout")
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def golden(bundle: Bundle) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((bundle.folder / "golden" / "golden.json").read_text())
    return loaded


def test_it_is_what_the_recipes_say(bundle: Bundle) -> None:
    said = bundle.provenance["recipes"]
    assert said["general"]["labels"] == bundle.tree.parent_of
    assert [e.name for e in bundle.experts] == [name for name in said if name != "general"]
    assert bundle.provenance["data"]["fingerprint"]
    # The recipe beside it is the one that it was made with.
    for path in BUNDLES[bundle.folder.name][0].glob("*.toml"):
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        assert list(recipe["labels"]) == list(said[recipe["name"]]["labels"])
        for section in ("backbone", "input", "augment", "train", "teacher"):
            for key, value in recipe.get(section, {}).items():
                assert said[recipe["name"]][section][key] == value, (path.name, section, key)


def test_it_is_small(bundle: Bundle) -> None:
    total = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    assert total <= BUNDLES[bundle.folder.name][1] * 1e6


def test_every_hash_is_right_and_every_graph_loads(bundle: Bundle) -> None:
    for stage in bundle.stages:
        bundle.check_hash(stage)
    Cascade(bundle, ask="always").predict(Image.new("RGB", (64, 64)))


def test_graphs_say_the_same_as_the_manifest(bundle: Bundle) -> None:
    for stage in bundle.stages:
        session = ort.InferenceSession(str(bundle.folder / stage.file), providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        assert metadata["cascade.stage"] == stage.name
        if isinstance(stage, ImageStage):
            assert json.loads(metadata["cascade.labels"]) == list(stage.labels)
            assert json.loads(metadata["cascade.input"]) == stage.input.to_dict()
            assert metadata["cascade.takes"] == stage.takes
            assert {one.name for one in session.get_inputs()} == {stage.takes}


def test_preprocessing_gives_the_golden_pixels(bundle: Bundle, golden: dict[str, Any]) -> None:
    home = bundle.folder / "golden"
    for entry in golden["photos"]:
        image = load_image(
            home / entry["photo"], target=bundle.decode_target, reducing_gap=bundle.reducing_gap
        )
        for stage in bundle.image_stages:
            expected = np.asarray(Image.open(home / entry["prepared"][stage.name])).astype(int)
            difference = np.abs(prepare(image, stage.input).astype(int) - expected)
            assert difference.max() <= golden["tolerance"]["pixels"]


def test_every_stage_gives_the_golden_outputs(bundle: Bundle, golden: dict[str, Any]) -> None:
    # Golden outputs at the top are those of the exact graphs; test_variants.py looks at the others.
    cascade, home = Cascade(bundle, variant="exact"), bundle.folder / "golden"
    logits, probabilities = golden["tolerance"]["logits"], golden["tolerance"]["probabilities"]
    for entry in golden["photos"]:
        inputs = {
            stage.input: np.asarray(Image.open(home / entry["prepared"][stage.name]))[None]
            for stage in bundle.image_stages
        }
        for ask in ("never", "router", "always"):
            out = cascade.run_stages(inputs, ask=ask)
            np.testing.assert_allclose(
                out.probabilities[0], entry[f"probabilities_{ask}"], atol=probabilities, rtol=0
            )
        np.testing.assert_allclose(out.general_logits[0], entry["general_logits"], atol=logits, rtol=0)
        for name, expected in entry["expert_logits"].items():
            np.testing.assert_allclose(out.expert_logits[name][0], expected, atol=logits, rtol=0)
        routed = cascade.run_stages(inputs, ask="router")
        np.testing.assert_allclose(routed.gain[0], entry["gain"], atol=probabilities, rtol=0)
        assert routed.deferred[0].tolist() == entry["asked_by_router"]


def test_no_two_golden_photos_look_alike_to_any_stage(golden: dict[str, Any]) -> None:
    # Otherwise a stage that ignores its input would pass.
    first, second = golden["photos"][:2]
    assert np.abs(np.subtract(first["general_logits"], second["general_logits"])).max() > 0.5
    for name in first["expert_logits"]:
        assert np.abs(np.subtract(first["expert_logits"][name], second["expert_logits"][name])).max() > 0.5


@pytest.mark.parametrize("stage", ["general", "router", "arbiter"])
def test_another_implementation_computes_the_same(bundle: Bundle, golden: dict[str, Any], stage: str) -> None:
    """ONNX's own reference evaluator, pure numpy, on the shipped graphs."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    from onnx.reference import ReferenceEvaluator

    if stage == "router" and bundle.router is None:
        pytest.skip("a bundle without experts has no router")
    evaluator = ReferenceEvaluator(onnx.load(bundle.folder / f"{stage}.onnx"))
    entry = golden["photos"][0]
    general = np.array([entry["general_logits"]], dtype=np.float32)
    if stage == "general":
        pixels = np.asarray(Image.open(bundle.folder / "golden" / entry["prepared"]["general"]))[None]
        found, *features = evaluator.run(["logits", *_shared(bundle)], {"image": pixels})
        np.testing.assert_allclose(found, general, atol=0.02)
        for expert in bundle.experts[:1]:
            home = bundle.folder / "golden"
            own = np.asarray(Image.open(home / entry["prepared"][expert.name]))[None]
            taken = features[0] if expert.takes == "features" else own
            expert_graph = ReferenceEvaluator(onnx.load(bundle.folder / expert.file))
            said = expert_graph.run(["logits"], {expert.takes: taken})[0]
            np.testing.assert_allclose(said[0], entry["expert_logits"][expert.name], atol=0.02)
    elif stage == "router":
        found = evaluator.run(["gain"], {"general_logits": general})[0]
        np.testing.assert_allclose(found[0], entry["gain"], atol=0.005)
    else:
        feeds = {"general_logits": general}
        if bundle.experts:
            feeds["asked"] = np.ones((1, len(bundle.experts)), np.float32)
        feeds |= {f"{k}_logits": np.array([v], dtype=np.float32) for k, v in entry["expert_logits"].items()}
        found = evaluator.run(["probabilities"], feeds)[0]
        np.testing.assert_allclose(found[0], entry["probabilities_always"], atol=0.005)


def _shared(bundle: Bundle) -> list[str]:
    return ["features"] if any(expert.takes == "features" for expert in bundle.experts) else []


def test_the_scene_model_remembers_enough_to_go_on_learning(shipped_bundle: Path) -> None:
    # `cascade learn` needs it; `python -m cascade.training.learning.remember` makes it.
    pytest.importorskip("sklearn", reason="needs the extra `train`")
    from cascade.training.learning.memory import MEMORY_FILE, read_memory

    bundle, memory = Bundle.load(shipped_bundle), read_memory(shipped_bundle / MEMORY_FILE)
    assert set(memory.labels) == set(bundle.tree.labels)
    assert set(memory.of) == {"general", *(expert.name for expert in bundle.experts)}
    assert min(memory.part("train").sum(), memory.part("calibration").sum()) > 1000
    assert (shipped_bundle / MEMORY_FILE).stat().st_size < 3e6
