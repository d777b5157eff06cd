"""Variants of a bundle: checked on this machine, chosen, remembered, forced, refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, INDOOR_COLOUR, Ran
from PIL import Image

from cascade import Bundle, Cascade
from cascade.bundle.stage import General, GraphFile
from cascade.errors import BundleError, UsageError
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.golden_check import Checked, verify
from cascade.inference.variants import VariantChoice, choose, choose_variant

onnx = pytest.importorskip("onnx", reason="variants are built with onnx: pip install onnx")

Photo = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CASCADE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with golden photos and a variant `int8` that computes nearly the same."""
    from cascade.training.export.golden import GoldenPhoto, write_golden

    home = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    replace_variant(home, scale=1.01)
    # Between two colours each, so that no answer is certain and a change of scale shows.
    colours = [np.array(colour) for _, colour in COLOURS.values()]
    pairs = itertools.pairwise(colours)
    photos = []
    for number, (one, other) in enumerate(pairs):
        content = io.BytesIO()
        Image.new("RGB", (40, 30), tuple((0.58 * one + 0.42 * other).astype(int).tolist())).save(
            content, "PNG"
        )
        photos.append(GoldenPhoto(f"photo{number}.png", "one colour", content.getvalue()))
    write_golden(home, photos)
    return home


def replace_variant(home: Path, scale: float) -> None:
    """Make general.int8.onnx: the general model with its logits multiplied."""
    model = onnx.load(home / "general.onnx")
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "logits":
                node.output[place] = "plain_logits"
    factor = onnx.numpy_helper.from_array(np.array(scale, dtype=np.float32), "factor")
    model.graph.initializer.append(factor)
    model.graph.node.append(onnx.helper.make_node("Mul", ["plain_logits", "factor"], ["logits"]))
    content = model.SerializeToString()
    (home / "general.int8.onnx").write_bytes(content)
    path = home / "bundle.json"
    manifest = json.loads(path.read_text())
    entry = {"file": "general.int8.onnx", "sha256": hashlib.sha256(content).hexdigest()}
    manifest["stages"]["general"]["variants"] = {"int8": entry}
    path.write_text(json.dumps(manifest))


def test_a_variant_that_computes_what_it_did_is_usable(bundle: Path) -> None:
    exact, int8 = verify(Bundle.load(bundle))
    assert (exact.variant, int8.variant) == ("exact", "int8")
    assert exact.usable
    assert int8.usable
    assert exact.from_exact < 1e-4 < int8.from_exact
    assert set(int8.difference) == {"general", "rooms", "arbiter"}
    assert max(int8.difference.values()) < 1e-3


@pytest.mark.parametrize(("scale", "said"), [(-1.0, "another label"), (0.5, "a probability differs")])
def test_a_variant_that_computes_something_else_here_is_refused(
    bundle: Path, scale: float, said: str
) -> None:
    replace_variant(bundle, scale)  # what a processor that saturates would do to the same graph
    exact, int8 = verify(Bundle.load(bundle))
    assert exact.usable
    assert not int8.usable
    assert any(said in problem for problem in int8.problems)
    assert choose_variant(Bundle.load(bundle)).variant == "exact"
    assert Cascade(bundle).variant == "exact"


CHECKED = Checked("exact", 4, {"general": 0.0, "arbiter": 0.0}, 0.0, 0, 10.0, ())


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([], "exact"),
        ([{"general_ms": 5.0}], "int8"),
        ([{"general_ms": 9.9}], "exact"),  # not worth any difference
        ([{"general_ms": 5.0, "problems": ("a label flipped",)}], "exact"),
        ([{"general_ms": 5.0}, {"variant": "int4", "general_ms": 3.0}], "int4"),
        ([{"general_ms": 5.0}, {"variant": "int4", "general_ms": 3.0, "problems": ("wrong",)}], "int8"),
    ],
)
def test_the_fastest_usable_one_is_chosen(others: list[dict], wanted: str) -> None:
    checked = [CHECKED, *(dataclasses.replace(CHECKED, **{"variant": "int8"} | other) for other in others)]
    assert choose(checked).variant == wanted


def test_a_choice_is_made_once(bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Bundle.load(bundle)
    calls = []
    monkeypatch.setattr("cascade.inference.variants.verify", lambda b: calls.append(b) or verify(b))
    first = choose_variant(loaded)
    assert choose_variant(loaded) == first
    assert len(calls) == 1
    (kept,) = (cache / "variants").iterdir()
    kept.write_text("{ damaged")
    assert choose_variant(loaded).variant in loaded.variants
    assert len(calls) == 2
    replace_variant(bundle, 1.02)  # another bundle is another question
    choose_variant(Bundle.load(bundle))
    assert len(calls) == 3


def test_where_nothing_can_be_kept_the_exact_graphs_run_unchecked(
    bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable[..., Ran]
) -> None:
    cache.write_text("a file where the folder should be")
    monkeypatch.setattr("cascade.cache.folders", lambda: (cache,))
    monkeypatch.setattr("cascade.inference.variants.verify", lambda bundle: pytest.fail("was checked"))
    choice = choose_variant(Bundle.load(bundle))
    assert (choice.variant, "CASCADE_CACHE" in choice.why) == ("exact", True)
    assert cache.read_text().startswith("a file")
    assert "the choice cannot be kept" in run_cli("verify", "--bundle", bundle).err


def test_one_variant_is_never_checked(tiny_bundle: Path, cache: Path) -> None:
    assert choose_variant(Bundle.load(tiny_bundle)) == VariantChoice("exact", "the bundle has no other")
    assert not cache.exists()


def test_a_variant_can_be_forced(bundle: Path, photo: Photo) -> None:
    path = photo("a.png", INDOOR_COLOUR)
    exact = Cascade(bundle, variant="exact", ask="never").predict(path)
    int8 = Cascade(bundle, variant="int8", ask="never").predict(path)
    assert exact.top != int8.top
    assert exact.top[0][1] == pytest.approx(int8.top[0][1], abs=0.02)
    with pytest.raises(UsageError, match="has no variant 'int4'; it has exact, int8"):
        Cascade(bundle, variant="int4")


@pytest.mark.parametrize("name", ["exact", "int8"])
def test_what_was_chosen_stays_chosen_when_the_bundle_is_handed_on(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"exact": "int8", "int8": "exact"}[name]
    monkeypatch.setattr(
        "cascade.inference.variants.choose", lambda checked: VariantChoice(other, "for the test")
    )
    assert Cascade(bundle).variant == other  # what would be chosen anew
    first = Cascade(bundle, variant=name)
    assert Cascade(first.bundle).bundle.general.file == first.bundle.general.file


def test_a_variant_has_a_good_file_and_another_name_than_exact() -> None:
    with pytest.raises(BundleError, match=r"file is '\.\./general\.onnx'; expected `str` matching"):
        GraphFile(file="../general.onnx", sha256="0" * 64)
    with pytest.raises(BundleError, match="sha256 is '0'; expected `str` matching"):
        GraphFile(file="general.onnx", sha256="0")
    graph = GraphFile(file="b.onnx", sha256="0" * 64)
    with pytest.raises(BundleError, match="cannot name a variant"):
        General(
            file="a.onnx", sha256="0" * 64, labels=("x",), input=InputSpec(8, 8), variants={"exact": graph}
        )
    with pytest.raises(ValueError, match="flipped"):
        dataclasses.replace(CHECKED, flipped=5)


def test_the_manifest_keeps_variants(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    assert loaded.to_dict()["stages"]["general"]["variants"]["int8"]["file"] == "general.int8.onnx"
    chosen = loaded.with_variant("int8")
    assert chosen.general.file == "general.int8.onnx"
    assert chosen.experts == loaded.experts  # they have no such variant


def test_the_command_says_what_is_usable(run_cli: Callable[..., Ran], bundle: Path) -> None:
    ran = run_cli("verify", "--bundle", bundle)
    assert ran.code == 0, ran.err
    assert "int8" in ran.out
    assert "--variant auto takes" in ran.out
    replace_variant(bundle, -1.0)
    refused = run_cli("verify", "--bundle", bundle, "--json")
    assert refused.code == 1
    facts = json.loads(refused.out)
    assert [one["usable"] for one in facts["variants"]] == [True, False]
    assert facts["auto"]["variant"] == "exact"
    assert "variant  exact of exact, int8 (int8: " in run_cli("info", "--bundle", bundle).out
    (bundle / "general.int8.onnx").write_bytes(b"something else")
    damaged = run_cli("info", "--bundle", bundle, "--check")
    assert damaged.code == 2
    assert "SHA-256" in damaged.err


def test_a_bundle_without_golden_outputs_cannot_be_checked(
    run_cli: Callable[..., Ran], tiny_bundle: Path
) -> None:
    ran = run_cli("verify", "--bundle", tiny_bundle)
    assert ran.code == 2
    assert "golden" in ran.err


def test_the_benchmark_shows_what_each_variant_brings(
    run_cli: Callable[..., Ran], bundle: Path, photo: Photo
) -> None:
    ran = run_cli("benchmark", photo(), "--bundle", bundle, "--rounds", "1", "--json")
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    assert set(facts["variant"]) == {"exact", "int8"}
    assert facts["variant_used"] in facts["variant"]
