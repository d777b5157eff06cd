"""Bundles: what fits is loaded, what does not is refused with the file, the fault and what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cascade.bundle.manifest import Bundle, find_bundle
from cascade.bundle.schema import Manifest
from cascade.classifier import Cascade
from cascade.errors import BundleError


@pytest.fixture
def broken(tiny_bundle: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Copy the tiny bundle and change its manifest."""

    def make(change: Callable[[dict[str, Any]], object]) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(tiny_bundle, folder)
        path = folder / "bundle.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        return folder

    return make


def test_the_manifest_survives_a_round_trip(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    written = json.loads((tiny_bundle / "bundle.json").read_text())
    again = Bundle.from_manifest(tiny_bundle, Manifest.from_dict(bundle.to_dict()))
    assert again == bundle
    assert [item["label"] for item in written["labels"]] == list(bundle.tree.labels)
    assert [stage.name for stage in bundle.stages] == ["general", "router", "rooms", "arbiter"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=99), "has format version 99"),
        (lambda d: d.pop("labels"), "bundle.json: missing required field `labels`"),
        (lambda d: d["stages"].pop("arbiter"), "stages: missing required field `arbiter`"),
        (lambda d: d["stages"]["general"].pop("sha256"), "stages.general: missing required field `sha256`"),
        (lambda d: d["stages"]["general"].update(sha256="x" * 64), "stages.general.sha256 is 'xxxx"),
        (
            lambda d: d["stages"]["general"].update(file="../general.onnx"),
            r"file is '\.\./general.onnx'; expected",
        ),
        (lambda d: d["stages"]["general"]["labels"].reverse(), "general model's labels are not the bundle's"),
        (lambda d: d["stages"]["arbiter"]["labels"].reverse(), "arbiter's labels are not the bundle's"),
        (lambda d: d["stages"]["general"].pop("input"), "stages.general: missing required field `input`"),
        (
            lambda d: d["stages"]["general"]["input"].update(crop="zoom"),
            "crop is 'zoom'; expected 'squash' or 'center'",
        ),
        (
            lambda d: d["stages"]["general"]["input"].update(depth=3),
            "contains unknown field `depth`",
        ),
        (lambda d: d["stages"]["experts"][0].update(cost=0), "cost is 0; expected `float` > 0.0"),
        (lambda d: d["stages"]["experts"][0]["labels"].pop(), "then 'not_mine'"),
        (lambda d: d["stages"]["experts"][0]["labels"].insert(0, "cellar"), "it also has cellar"),
        (lambda d: d["stages"].update(router=None), "a bundle with experts needs a router"),
        (lambda d: d["stages"]["experts"].append(d["stages"]["experts"][0]), "have the same name"),
        (lambda d: d.update(operating_points={}), "there is no operating point 'default'"),
        (
            lambda d: d["operating_points"]["default"].update(leaf_threshold=2),
            "default.leaf_threshold is 2",
        ),
        (lambda d: d["labels"][0].update(label="kitchen"), "names a label twice"),
        (lambda d: d["labels"][0].update(label="unknown"), "'unknown' is reserved"),
        (lambda d: d.update(minimum_onnxruntime="99.0"), r"pip install 'onnxruntime>=99.0'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(broken: Any, change: Any, message: str) -> None:
    folder = broken(change)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.load(folder)
    assert str(folder / "bundle.json") in str(caught.value)


def test_a_manifest_that_is_no_json_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    (folder / "bundle.json").write_text('{"format_version": 1,')
    with pytest.raises(BundleError, match=r"is not JSON \(line 1"):
        Bundle.load(folder)


HUGE = ["1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000, "1e400", "NaN", "Infinity"]


@pytest.mark.parametrize("number", HUGE)
def test_a_number_that_no_computer_holds_is_refused_wherever_it_stands(
    tiny_bundle: Path, tmp_path: Path, number: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    path = folder / "bundle.json"
    text = path.read_text()
    places = list(re.finditer(r"(?<=[:\[,\s])-?\d[\d.e+-]*(?=[,\s\]}])", text))
    assert len(places) > 5
    for place in places:
        path.write_text(text[: place.start()] + number + text[place.end() :])
        with pytest.raises(BundleError) as caught:
            Bundle.load(folder)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 300 + len(str(path))


def test_a_changed_graph_is_refused_before_it_is_loaded(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    path = folder / "general.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="the file is damaged or was replaced"):
        Cascade(folder)
    path.unlink()
    with pytest.raises(BundleError, match=r"general\.onnx: cannot be read"):
        Cascade(folder)


def test_a_graph_whose_labels_do_not_fit_is_refused(broken: Any) -> None:
    def swap(data: dict[str, Any]) -> None:
        # The expert's graph in the general model's place: hashes are right, the labels are not.
        expert = data["stages"]["experts"][0]
        data["stages"]["general"].update(file=expert["file"], sha256=expert["sha256"])

    with pytest.raises(BundleError, match=r"rooms\.onnx: the graph takes .* but the bundle needs"):
        Cascade(broken(swap))


def test_a_file_that_is_no_graph_is_refused(broken: Any) -> None:
    import hashlib

    def spoil(data: dict[str, Any]) -> None:
        data["stages"]["general"]["sha256"] = hashlib.sha256(b"no graph").hexdigest()

    folder = broken(spoil)
    (folder / "general.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"general\.onnx"):
        Cascade(folder)


def test_where_a_bundle_is_looked_for(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_BUNDLE", str(tiny_bundle))
    assert find_bundle() == tiny_bundle
    assert Cascade().bundle.name == "tiny"
    with pytest.raises(BundleError, match="the bundle that was asked for is not at"):
        find_bundle(tmp_path)  # the argument wins, even when it is wrong
    monkeypatch.setenv("CASCADE_BUNDLE", str(tmp_path / "nowhere"))
    with pytest.raises(BundleError, match=r"\$CASCADE_BUNDLE is not at .*cascade train"):
        find_bundle()


def test_a_clone_finds_the_shipped_bundle(shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CASCADE_BUNDLE", raising=False)
    assert find_bundle() == shipped_bundle
