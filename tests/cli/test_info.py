"""`cascade info` and `cascade demo`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil

import pytest

from cascade.cli.demo import sample_photos
from cascade.errors import MissingExtraError


def test_info_names_everything(run_cli, tiny_bundle):
    ran = run_cli("info", "--check")
    assert ran.code == 0
    digest = hashlib.sha256((tiny_bundle / "bundle.json").read_bytes()).hexdigest()
    for said in (
        "bundle   tiny 1.2.3\n",
        f"sha256   {digest} (bundle.json)\n",
        "labels   5 in 3 groups\n  indoor   bedroom, kitchen\n",
        "  rooms       0.00 MB  32 x 32 px, squash; cost 1.5; 3 outputs\n",
        "  strict: a label from 0.999,",
        "every graph has the SHA-256 that bundle.json gives\n",
    ):
        assert said in ran.out


def test_info_as_json_is_the_manifest(run_cli, tiny_bundle):
    document = json.loads(run_cli("info", "--json").out)
    manifest = json.loads((tiny_bundle / "bundle.json").read_text())
    for key in ("name", "version", "labels", "provenance"):
        assert document[key] == manifest[key]
    assert document["stages"]["general"]["sha256"] == manifest["stages"]["general"]["sha256"]
    assert document["bytes"]["general"] == (tiny_bundle / "general.onnx").stat().st_size


def test_info_finds_a_changed_graph(run_cli, tiny_bundle, tmp_path):
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    with (copy / "rooms.onnx").open("ab") as file:
        file.write(b"!")
    assert run_cli("info", "--bundle", copy).code == 0
    ran = run_cli("info", "--bundle", copy, "--check")
    assert ran.code == 2
    assert "rooms.onnx: has SHA-256" in ran.err


def test_demo_classifies_what_the_packages_bring(run_cli):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    ran = run_cli("demo")
    lines = ran.out.splitlines()[2:]
    assert ran.code == 0
    assert len(lines) == 10
    assert lines[0].endswith("  scikit-learn/china.jpg")
    assert sum("scikit-image/" in line for line in lines) == 8
    assert not any(line.startswith("error") for line in lines)


def test_demo_without_its_extra_says_how_to_get_it(run_cli, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError):
        sample_photos()
    ran = run_cli("demo")
    assert ran.code == 2
    assert "pip install 'cascade-vision[demo]'" in ran.err
