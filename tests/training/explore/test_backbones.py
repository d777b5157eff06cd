"""`cascade compare`: real, only small; networks that timm keeps for tests, without pretrained weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_training import write_colours, write_recipe

torch = pytest.importorskip("torch", reason="needs the extra `train`")
timm = pytest.importorskip("timm", reason="needs the extra `train`")
onnx = pytest.importorskip("onnx", reason="needs the extra `train`")
pytest.importorskip("onnxscript", reason="needs the extra `train`")
pytest.importorskip("sklearn", reason="needs the extra `train`")

from cascade.errors import DataError, UsageError
from cascade.evaluation.dataset import Photo
from cascade.training.explore.backbones import Candidate, probe_accuracy

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet18", Candidate("resnet18")),
        ("resnet18.a1_in1k@192", Candidate("resnet18.a1_in1k", None, 192)),
        ("lite=package:some_model@260", Candidate("lite", "package:some_model", 260)),
        ("lite=file:a@b/w.pth", Candidate("lite", "file:a@b/w.pth", None)),
        (" lite=none ", Candidate("lite", "none", None)),
    ],
)
def test_a_backbone_is_a_name_weights_and_pixels(text: str, expected: Candidate) -> None:
    assert Candidate.parse(text) == expected


@pytest.mark.parametrize("text", ["", "=none", "@224"])
def test_a_backbone_without_a_name_is_misuse(text: str) -> None:
    with pytest.raises(UsageError, match="write NAME"):
        Candidate.parse(text)


def test_accuracy_counts_only_photos_of_the_labels() -> None:
    import numpy as np

    def photos(split: str, labels: str) -> list[Photo]:
        return [Photo(Path(f"{split}{i}"), label, split, "", "") for i, label in enumerate(labels)]

    train, held_out = photos("train", "aaabbbccc"), photos("calibration", "abc")
    place = {"a": (4.0, 0.0), "b": (-4.0, 0.0), "c": (0.0, 4.0)}
    features = np.array([place[p.label] for p in (*train, *held_out)], dtype=np.float32)
    features[-2] = place["a"]  # the b that is judged looks like an a
    both = probe_accuracy(features, train, held_out, {"a", "b"})
    assert (both.right, both.photos, both.accuracy) == (1, 2, 0.5)
    assert both.low < 0.5 < both.high
    assert probe_accuracy(features, train, held_out, {"a", "b", "c"}).photos == 3
    with pytest.raises(DataError, match="too few photos of a"):
        probe_accuracy(features, train, held_out, {"a"})


def test_compare_writes_a_table_a_plot_and_json(run_cli, tmp_path: Path) -> None:
    data, recipes = write_colours(tmp_path / "data"), tmp_path / "recipes"
    recipes.mkdir()
    write_recipe(recipes)
    # The photos of `test` are not looked at: they are no photos at all.
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"not a photo " + path.name.encode() + path.parent.name.encode())
    out = tmp_path / "out"
    names = "test_efficientnet@32,test_resnet=none@48"
    arguments = ("compare", data, "--backbones", names, "--recipes", recipes, "--out", out, "--device", "cpu")
    ran = run_cli(*arguments)
    assert ran.code == 0, ran.err
    document = json.loads((out / "compare.json").read_text())
    assert document["split"] == "calibration"
    first, second = document["backbones"]
    assert (first["name"], first["weights"], first["side"]) == ("test_efficientnet", "none", 32)
    assert (second["name"], second["weights"], second["side"]) == ("test_resnet", "none", 48)
    model = timm.create_model("test_resnet", num_classes=0)
    assert second["parameters"] == sum(p.numel() for p in model.parameters())
    for row in document["backbones"]:
        assert row["accuracy"]["general"]["photos"] == 8
        assert row["accuracy"]["general"]["accuracy"] >= 0.75, "red and green"
        graph = onnx.load(out / "graphs" / f"{row['name']}_{row['side']}.onnx")
        assert row["onnx_mb"] == pytest.approx(graph.ByteSize() / 1e6, abs=0.01)
        assert row["ms"] > 0
    assert first["cost"] == 1
    assert second["cost"] != 1
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "general" in ran.out
    assert "test_resnet" in ran.out


def test_compare_needs_names_and_photos(run_cli, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data")
    ran = run_cli("compare", data, "--backbones", ",", "--out", tmp_path / "out")
    assert (ran.code, "--backbones names none" in ran.err) == (2, True)
    ran = run_cli("compare", data, "--backbones", "no_such_net=none", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "Unknown model" in ran.err
    (data / "calibration").rename(data / "elsewhere")
    ran = run_cli("compare", data, "--backbones", "test_resnet=none", "--out", tmp_path / "out2")
    assert ran.code == 2
    assert "no photos in the split 'calibration'" in ran.err
