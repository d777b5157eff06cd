"""Shared fixtures. `tiny_bundle` is a real bundle of real graphs that judges a photo by its mean colour, so
that a test knows the right answer without a trained network; `photo` writes a photo of one colour."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from cascade.cli.main import main

# A busy machine is slow now and then; how long an example takes is no property of the code.
hypothesis.settings.register_profile(
    "cascade", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("cascade")

#: label -> (parent, the colour, RGB 0..255, that is certain to be it)
COLOURS = {
    "bedroom": ("indoor", (220, 40, 40)),
    "kitchen": ("indoor", (230, 140, 40)),
    "beach": ("outdoor", (40, 120, 220)),
    "forest": ("outdoor", (40, 160, 40)),
    "menu": ("menu", (245, 245, 245)),
}
#: A colour between those of bedroom and kitchen, and one as far from all of them as can be.
INDOOR_COLOUR = (225, 92, 40)
UNKNOWN_COLOUR = (128, 128, 128)

_SIDE = 32


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered per machine is remembered for this run only, also by processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photos_folder() -> Path:
    """The labelled photographs: `$CASCADE_PHOTOS`, or the folder beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CASCADE_PHOTOS", default))
    if not (folder / "photos" / "test").is_dir():
        pytest.skip(f"the labelled photographs are not at {folder}; set CASCADE_PHOTOS")
    return folder


@pytest.fixture(scope="session")
def shipped_bundle() -> Path:
    """The bundle of this checkout."""
    folder = Path(__file__).resolve().parents[1] / "models" / "default"
    if not (folder / "bundle.json").is_file():
        pytest.skip("models/default holds no bundle in this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose general model, expert, router and arbiter are a few operators each."""
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny-bundle"))


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """Write a photo of one colour below `tmp_path`; `colour` is a label of `COLOURS` or an RGB triple."""

    def write(
        name: str = "photo.jpg",
        colour: str | tuple[int, int, int] = "bedroom",
        size: tuple[int, int] = (64, 48),
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rgb = COLOURS[colour][1] if isinstance(colour, str) else colour
        Image.new("RGB", size, rgb).save(path)
        return path

    return write


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(
    capfd: pytest.CaptureFixture[str], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Run the command line in this process, with the tiny bundle unless the test says otherwise."""
    monkeypatch.setenv("CASCADE_BUNDLE", str(tiny_bundle))

    def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(int(end.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def labelled_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LABEL/FILE: eight photos per label around its colour, and so also in between. Not to be changed."""
    random, home = np.random.default_rng(4), tmp_path_factory.mktemp("labelled")
    for label, (_, colour) in COLOURS.items():
        (home / label).mkdir()
        Image.new("RGB", (64, 48), colour).save(home / label / "clean.png")
        for index in range(7):
            rgb = np.clip(np.array(colour) + random.normal(0, 60, 3), 0, 255).astype(int).tolist()
            Image.new("RGB", (40 + 30 * index, 50), tuple(rgb)).save(home / label / f"{index}.png")
    return home


@pytest.fixture
def labelled_folder(labelled_photos: Path, tmp_path: Path) -> Path:
    """A copy of `labelled_photos` that a test may change."""
    return shutil.copytree(labelled_photos, tmp_path / "data")


@pytest.fixture(scope="session")
def two_expert_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a second expert, which mixes its labels up and so does harm, with the arbiter that
    training would build and a router that asks about some labels and not about others."""
    onnx = pytest.importorskip("onnx")
    from cascade.export.nodes import Nodes
    from cascade.training.export import decision_graphs as graphs

    home = tmp_path_factory.mktemp("two") / "bundle"
    shutil.copytree(tiny_bundle, home)
    shutil.copy(home / "rooms.onnx", home / "more.onnx")
    labels = list(COLOURS)
    experts = {"rooms": labels[:2], "more": labels[1::-1]}
    arbiter = graphs.ArbiterParameters(1.3, np.array([1.0, 2.0]), np.array([0.5, 0.9]), np.array([-0.1, 0.2]))
    ask = Nodes()
    tastes = np.random.default_rng(5).uniform(-0.9, 0.9, (len(labels), 2))
    ask("MatMul", ask("Softmax", "general_logits", axis=1), ask.constant(tastes), output="gain")
    router = graphs.decision_graph(ask, "router", {"general_logits": len(labels)}, ("gain", 2), {})
    onnx.save(graphs.arbiter_graph(arbiter, labels, experts, {}), home / "arbiter.onnx")
    onnx.save(router, home / "router.onnx")

    def change(manifest: dict) -> None:
        stages = manifest["stages"]
        more = {"name": "more", "file": "more.onnx", "labels": [*experts["more"], "not_mine"], "cost": 0.7}
        stages["experts"].append(stages["experts"][0] | more)
        stages["router"]["labels"] = ["rooms", "more"]
        manifest["operating_points"]["default"]["cost_weight"] = 0.0

    return _rewrite(home, change)


@pytest.fixture(scope="session")
def dial_bundle(two_expert_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of two experts with a dial of three steps, of which the last one is the default."""
    home = shutil.copytree(two_expert_bundle, tmp_path_factory.mktemp("dial") / "bundle")

    def change(manifest: dict) -> None:
        default = manifest["operating_points"]["default"]
        steps = []
        for budget, cost_weight, cost in ((0.0, 2.0, 1.0), (0.5, 0.045, 1.4), (1.0, 0.0, 1.9)):
            figures = {"mean_cost": cost, "accuracy": 0.8, "nll": 0.6, "deferral_rate": budget / 2}
            promise = {"confidence": 0.95, "photos": 90, "method": "", "scope_threshold": None}
            promise |= {"cost_weight": cost_weight, "curve": [[0.1 + 0.1 * budget, 0.9, 0.8]]}
            point = default | {"cost_weight": cost_weight, "max_error": 0.25}
            steps.append({"budget": budget, **figures, "operating_point": point, "promise": promise})
        manifest["operating_points"]["default"] = steps[-1]["operating_point"]
        manifest["promise"] = steps[-1]["promise"]
        manifest["budget"] = {"default": 1.0, "points": steps}

    return _rewrite(home, change)


@pytest.fixture(scope="session")
def expertless_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a general model and a calibrating arbiter."""
    onnx = pytest.importorskip("onnx")
    from cascade.training.export import decision_graphs as graphs

    home = tmp_path_factory.mktemp("none") / "bundle"
    shutil.copytree(tiny_bundle, home)
    (home / "rooms.onnx").unlink()
    (home / "router.onnx").unlink()
    labels, nobody = list(COLOURS), np.zeros(0)
    onnx.save(
        graphs.arbiter_graph(graphs.ArbiterParameters(2.0, nobody, nobody, nobody), labels, {}, {}),
        home / "arbiter.onnx",
    )

    def change(manifest: dict) -> None:
        manifest["stages"]["experts"] = []
        manifest["stages"]["router"] = None

    return _rewrite(home, change)


def _rewrite(home: Path, change: Callable[[dict], None]) -> Path:
    """Change a manifest and set its hashes right."""
    path = home / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    stages = manifest["stages"]
    for stage in (stages["general"], stages["router"], stages["arbiter"], *stages["experts"]):
        if stage:
            stage["sha256"] = hashlib.sha256((home / stage["file"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    return home


def write_tiny_bundle(folder: Path) -> Path:
    """Write the bundle of `tiny_bundle` to a folder and return it."""
    onnx = pytest.importorskip("onnx", reason="the tiny bundle is built with onnx: pip install onnx")
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    labels = list(COLOURS)
    prototypes = np.array([colour for _, colour in COLOURS.values()], dtype=np.float32) / 255

    def save(name: str, nodes: list, inputs: dict, outputs: dict, constants: dict) -> dict:
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(k, t, s) for k, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in outputs.items()],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        content = model.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(content)
        return {"file": f"{name}.onnx", "sha256": hashlib.sha256(content).hexdigest()}

    def image_stage(name: str, anchors: np.ndarray, sharpness: float, other: float | None) -> dict:
        """logits = -sharpness * squared distance of the mean colour to each anchor; `other` is added last."""
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "scale"], ["embedding"]),
            helper.make_node("Gemm", ["embedding", "weight", "bias"], ["near"]),
            helper.make_node("ReduceSumSquare", ["embedding", "one"], ["square"], keepdims=1),
            helper.make_node("Mul", ["square", "minus"], ["square_scaled"]),
        ]
        raw = "logits" if other is None else "mine"
        nodes.append(helper.make_node("Add", ["near", "square_scaled"], [raw]))
        constants = {
            "axes": np.array([1, 2], dtype=np.int64),
            "one": np.array([1], dtype=np.int64),
            "scale": np.float32(1 / 255),
            "weight": (2 * sharpness * anchors.T).astype(np.float32),
            "bias": (-sharpness * (anchors**2).sum(axis=1)).astype(np.float32),
            "minus": np.float32(-sharpness),
        }
        width = len(anchors)
        outputs = {"logits": ["N", width + (other is not None)]}
        if other is None:
            outputs["embedding"] = ["N", 3]
        else:
            nodes += [
                helper.make_node("Mul", ["square", "zero"], ["nothing"]),
                helper.make_node("Add", ["nothing", "other"], ["foreign"]),
                helper.make_node("Concat", ["mine", "foreign"], ["logits"], axis=1),
            ]
            constants |= {"zero": np.float32(0), "other": np.float32(other)}
        inputs = {"image": (TensorProto.UINT8, ["N", _SIDE, _SIDE, 3])}
        spec = {"width": _SIDE, "height": _SIDE}
        return save(name, nodes, inputs, outputs, constants) | {"input": spec}

    count = len(labels)
    general = image_stage("general", prototypes, 20.0, None)
    rooms = image_stage("rooms", prototypes[:2], 60.0, -12.0)
    both = np.zeros((count, 1), dtype=np.float32)
    both[:2] = 1.0
    router = save(
        "router",
        [  # asks when it is a room, but not clear which one: P(room) - max P
            helper.make_node("Softmax", ["general_logits"], ["p"], axis=1),
            helper.make_node("MatMul", ["p", "both"], ["room"]),
            helper.make_node("ReduceMax", ["p", "axis"], ["best"], keepdims=1),
            helper.make_node("Sub", ["room", "best"], ["gain"]),
        ],
        {"general_logits": (TensorProto.FLOAT, ["N", count])},
        {"gain": ["N", 1]},
        {"both": both, "axis": np.array([1], dtype=np.int64)},
    )
    spread = np.zeros((3, count), dtype=np.float32)
    spread[0, 0] = spread[1, 1] = 1.0
    spread[2, 2:] = 1.0
    arbiter = save(
        "arbiter",
        [  # general plus expert, where the expert's "not mine" speaks for every other label
            helper.make_node("MatMul", ["rooms_logits", "spread"], ["said"]),
            helper.make_node("Mul", ["said", "asked"], ["counted"]),
            helper.make_node("Add", ["general_logits", "counted"], ["sum"]),
            helper.make_node("Softmax", ["sum"], ["probabilities"], axis=1),
        ],
        {
            "general_logits": (TensorProto.FLOAT, ["N", count]),
            "rooms_logits": (TensorProto.FLOAT, ["N", 3]),
            "asked": (TensorProto.FLOAT, ["N", 1]),
        },
        {"probabilities": ["N", count]},
        {"spread": spread},
    )
    manifest = {
        "format_version": 1,
        "name": "tiny",
        "version": "1.2.3",
        "minimum_onnxruntime": "1.16",
        "labels": [{"label": label, "parent": parent} for label, (parent, _) in COLOURS.items()],
        "stages": {
            "general": {**general, "labels": labels},
            "experts": [
                {"name": "rooms", **rooms, "labels": ["bedroom", "kitchen", "not_mine"], "cost": 1.5}
            ],
            "router": {**router, "labels": ["rooms"]},
            "arbiter": {**arbiter, "labels": labels},
        },
        "operating_points": {
            "default": {"leaf_threshold": 0.7, "parent_threshold": 0.8, "cost_weight": 0.1},
            "strict": {"leaf_threshold": 0.999, "parent_threshold": 0.9999, "cost_weight": 0.0},
        },
        "provenance": {"data": "colours of tests/conftest.py"},
        "measured": {},
    }
    (folder / "bundle.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return folder
