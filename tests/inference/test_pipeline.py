"""One way through the stages: what each stage sees, what comes out, and what a caller may rely on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, INDOOR_COLOUR
from PIL import Image

from cascade import Bundle, BundleError, Cascade
from cascade.arrays import softmax
from cascade.imaging.preprocessing import InputSpec, prepare
from cascade.inference.pipeline import Pipeline

Photo = Callable[..., Path]


@pytest.fixture
def bundle_of_two_sizes(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle whose expert sees the middle of the photo, larger than the general model does."""
    onnx = pytest.importorskip("onnx", reason="the graph is changed with onnx: pip install onnx")
    home = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    model = onnx.load(home / "rooms.onnx")
    shape = model.graph.input[0].type.tensor_type.shape.dim
    shape[1].dim_value = shape[2].dim_value = 48
    content = model.SerializeToString()
    (home / "rooms.onnx").write_bytes(content)
    manifest = json.loads((home / "bundle.json").read_text())
    expert = manifest["stages"]["experts"][0]
    expert["sha256"] = hashlib.sha256(content).hexdigest()
    expert["input"] |= {"width": 48, "height": 48, "crop": "center", "crop_fraction": 0.5}
    expert["takes"] = "image"
    (home / "bundle.json").write_text(json.dumps(manifest))
    return home


def test_each_stage_sees_its_own_input_from_one_decode(
    bundle_of_two_sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(bundle_of_two_sizes)
    (expert,) = bundle.experts
    photo = tmp_path / "photo.png"
    # A bedroom in the middle of a beach: only the expert's crop sees the bedroom alone.
    image = Image.new("RGB", (400, 400), COLOURS["beach"][1])
    image.paste(COLOURS["bedroom"][1], (100, 100, 300, 300))
    image.save(photo)
    decoded = []
    import cascade.inference.pipeline as module

    load = module.load_image
    monkeypatch.setattr(module, "load_image", lambda *a, **k: decoded.append(k["target"]) or load(*a, **k))
    pipeline = Pipeline.of(bundle)
    prepared = pipeline.prepare([photo])
    assert decoded == [(96, 96)]  # what the expert's crop needs, more than the general model's 32 x 32
    assert {spec.width: pixels.shape for spec, pixels in prepared.inputs.items()} == {
        32: (1, 32, 32, 3),
        48: (1, 48, 48, 3),
    }
    out = pipeline.run(prepared.inputs, ask="always")
    assert expert.labels[int(out.expert_logits["rooms"][0].argmax())] == "bedroom"
    assert bundle.tree.labels[int(out.general_logits[0].argmax())] != "bedroom"
    assert Cascade(bundle, ask="always").predict(photo).experts[0].label == "bedroom"


def test_the_result_is_whole_and_cannot_be_changed(tiny_bundle: Path, photo: Photo) -> None:
    pipeline = Pipeline.of(Bundle.load(tiny_bundle))
    out = pipeline.run(pipeline.prepare([photo(), photo("b.png", "menu")]).inputs, ask="never")
    assert len(out) == 2
    assert all(
        getattr(out, field.name) is not None or field.name == "scope_score"
        for field in dataclasses.fields(out)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.probabilities = out.general_probabilities


def test_photos_that_cannot_be_read_keep_the_places_of_the_others(tiny_bundle: Path, photo: Photo) -> None:
    bad = photo("bad.jpg")
    bad.write_bytes(b"no photo")
    prepared = Pipeline.of(Bundle.load(tiny_bundle)).prepare([photo(), bad, photo("c.png")])
    assert prepared.positions == (0, 2)
    ((place, error, _),) = prepared.failed
    assert (place, error.code) == (1, "not_an_image")


def test_a_bundle_in_the_making_gives_plain_softmax(tiny_bundle: Path, photo: Photo) -> None:
    bundle = Bundle.load(tiny_bundle)
    making = Pipeline(bundle.folder, bundle.general, bundle.experts)
    inputs = making.prepare([photo("a.png", INDOOR_COLOUR)]).inputs
    out, finished = making.run(inputs, ask="always"), Pipeline.of(bundle).run(inputs, ask="always")
    np.testing.assert_array_equal(out.general_logits, finished.general_logits)
    np.testing.assert_array_equal(out.expert_logits["rooms"], finished.expert_logits["rooms"])
    np.testing.assert_array_equal(out.probabilities, softmax(out.general_logits))
    assert not np.allclose(out.probabilities, finished.probabilities)
    assert not out.gain.any()


def test_every_photo_reaches_only_the_experts_that_were_asked(two_expert_bundle: Path, photo: Photo) -> None:
    pipeline = Pipeline.of(Bundle.load(two_expert_bundle))
    photos = [photo(f"{label}.png", label) for label in COLOURS]
    inputs = pipeline.prepare(photos).inputs
    out, everybody = pipeline.run(inputs, cost_weight=0.1), pipeline.run(inputs, ask="always")
    assert 0 < out.deferred.sum() < out.deferred.size
    for column, name in enumerate(("rooms", "more")):
        rows = out.deferred[:, column]
        assert rows.any()
        np.testing.assert_array_equal(out.expert_logits[name], everybody.expert_logits[name][rows])
    nobody = ~out.deferred.any(axis=1)
    np.testing.assert_allclose(out.probabilities[nobody], out.general_probabilities[nobody], atol=1e-6)


def test_a_damaged_expert_is_noticed_when_asked(tiny_bundle: Path, tmp_path: Path, photo: Photo) -> None:
    home = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (home / "rooms.onnx").write_bytes(b"something else")
    pipeline = Pipeline.of(Bundle.load(home))
    inputs = pipeline.prepare([photo()]).inputs
    pipeline.run(inputs, ask="never")
    with pytest.raises(BundleError, match=r"rooms\.onnx: has SHA-256"):
        pipeline.run(inputs, ask="always")


def test_prepared_pixels_are_those_of_the_published_function(tiny_bundle: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8))
    ((spec, pixels),) = Pipeline.of(Bundle.load(tiny_bundle)).prepare([image]).inputs.items()
    assert isinstance(spec, InputSpec)
    np.testing.assert_array_equal(pixels[0], prepare(image, spec))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_bundle_loads_in_the_memory_that_it_needs(shipped_bundle: Path) -> None:
    """As `ulimit -v 1000000` does; a read of "at most 1 GiB" would reserve 1 GiB."""
    code = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (1_000_000 * 1024, 1_000_000 * 1024))
        from cascade import Cascade
        print(Cascade(sys.argv[1], ask="always", variant="exact").predict(sys.argv[2]).label)
    """
    photo = shipped_bundle / "golden" / "coffee.png"
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(shipped_bundle), str(photo)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
