"""`cascade learn`: a bundle that knows three colours learns other shades, a new colour and a new expert."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")
onnx = pytest.importorskip("onnx", reason="needs the extra `train`")
pytest.importorskip("mapie", reason="needs the extra `train`")

from linear_bundle import COLOURS, make_linear_bundle, write_colours

from cascade import Bundle, Cascade
from cascade.bundle.files import changed_files
from cascade.cli.main import main
from cascade.errors import DataError, UsageError
from cascade.inference.golden_check import verify
from cascade.training.learning.heads import read_head
from cascade.training.learning.learn import LearnOptions, learn
from cascade.training.learning.memory import MEMORY_FILE, read_memory

pytestmark = pytest.mark.train

#: Shades that a bundle which knows only `COLOURS` takes for something else.
SHADES = {"red": (130, 190, 40), "blue": (60, 190, 160)}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("old")
    photos = write_colours(home / "photos", COLOURS, 60, 0)
    strangers = write_colours(home / "strangers", {"grey": (128, 128, 128)}, 24, 9)
    return make_linear_bundle(home / "bundle", photos, strangers)


@pytest.fixture(scope="module")
def relearned(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("relearned")
    corrections = write_colours(home / "corrections", SHADES, 30, 1)
    learn(old, [corrections], home / "bundle", LearnOptions(version="1.1.0"))
    return home / "bundle"


def right(bundle: Path, folder: Path) -> float:
    paths = sorted(folder.glob("*/*.png"))
    answers = Cascade(bundle, variant="exact").predict_many(paths)
    return float(np.mean([a.top[0][0] == p.parent.name for a, p in zip(answers, paths, strict=True)]))


def is_whole(folder: Path) -> bool:
    bundle = Bundle.load(folder)
    return all(found.usable for found in verify(bundle)) and changed_files(bundle) == []


def test_other_shades_are_learned_and_nothing_is_forgotten(
    old: Path, relearned: Path, tmp_path: Path
) -> None:
    unseen = write_colours(tmp_path / "unseen", SHADES, 20, 2)
    known = write_colours(tmp_path / "known", COLOURS, 20, 3)
    assert right(old, unseen) < 0.5
    assert right(relearned, unseen) >= 0.9
    assert right(relearned, known) >= right(old, known) - 0.02


def test_the_result_is_a_whole_bundle_that_says_what_it_learned(old: Path, relearned: Path) -> None:
    bundle = Bundle.load(relearned)
    assert bundle.version == "1.1.0"
    assert bundle.variants == ("exact", "int8")
    assert is_whole(relearned)
    learned = bundle.provenance["learned"]
    held_out = learned["compared"]["corrections that were held out"]
    assert held_out["photos"] == learned["data"]["photos"]["test"] > 10
    assert held_out["accuracy"][1] > held_out["accuracy"][0]
    card = (relearned / "README.md").read_text()
    assert f"| corrections that were held out | {held_out['photos']} |" in card
    # What it learned is in its memory, so that it can go on learning.
    before, after = (read_memory(folder / MEMORY_FILE) for folder in (old, relearned))
    assert len(after) == len(before) + 60
    assert len(after.strangers) == len(before.strangers) == 24


def test_both_variants_have_the_same_head(relearned: Path, old: Path) -> None:
    for stage in ("general", "warm"):
        files = [folder / f"{stage}{kind}.onnx" for folder in (relearned, old) for kind in ("", ".int8")]
        new, new_int8, before, _ = (read_head(onnx.load(file), str(file)) for file in files)
        np.testing.assert_array_equal(new.weights, new_int8.weights)
        np.testing.assert_array_equal(new.bias, new_int8.bias)
        assert not np.array_equal(new.weights, before.weights)


def test_a_new_label_and_a_new_expert_need_no_old_photos(old: Path, tmp_path: Path) -> None:
    new = write_colours(tmp_path / "new", {"yellow": (230, 220, 30)}, 30, 5)
    pools = write_colours(tmp_path / "pools", {"cyan": (40, 220, 220), "pink": (240, 120, 200)}, 30, 7)
    known, out = write_colours(tmp_path / "known", COLOURS, 20, 3), tmp_path / "out"
    learn(old, [new], out, LearnOptions(parents={"yellow": "colour"}, experts={"pastels": pools}))
    bundle = Bundle.load(out)
    assert bundle.tree.labels == (*Bundle.load(old).tree.labels, "cyan", "pink", "yellow")
    assert bundle.tree.parent("yellow") == "colour"
    assert bundle.tree.parent("pink") == "pastels"
    assert [expert.name for expert in bundle.experts] == ["warm", "pastels"]
    assert bundle.experts[1].labels == ("cyan", "pink", "not_mine")
    assert is_whole(out)
    photo = sorted(pools.glob("cyan/*.png"))[0]
    asked = Cascade(out, ask="always", variant="exact").predict(photo).experts
    assert {expert.name: expert.label for expert in asked}["pastels"] == "cyan"
    assert right(out, write_colours(tmp_path / "more", {"yellow": (230, 220, 30)}, 20, 6)) >= 0.9
    assert right(out, pools) >= 0.9
    assert right(out, known) >= right(old, known) - 0.05


def test_wrong_corrections_are_refused_and_leave_nothing(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is learned says that greens are red, and what is held out says that they are green.
    wrong = tmp_path / "wrong"
    write_colours(wrong / "train", {"red": COLOURS["green"], "blue": COLOURS["blue"]}, 25, 4)
    write_colours(wrong / "test", {"green": COLOURS["green"], "blue": COLOURS["blue"]}, 15, 5)
    out = tmp_path / "out"
    arguments = ["learn", str(wrong), "--bundle", str(old), "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "nothing was written, because the new bundle would be worse" in said
    assert (
        "the corrections that were held out are as often right, but less likely" in said or "fewer of" in said
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--force"])
    assert end.value.code == 0
    assert "written because of --force" in capsys.readouterr().err
    assert is_whole(out)


def test_what_cannot_be_learned_is_said(old: Path, tmp_path: Path) -> None:
    corrections = write_colours(tmp_path / "corrections", SHADES, 15, 1)
    bare, out = shutil.copytree(old, tmp_path / "bare"), tmp_path / "out"
    (bare / MEMORY_FILE).unlink()
    with pytest.raises(DataError, match=r"has no memory\.npz, so it would forget"):
        learn(bare, [corrections], out, LearnOptions())
    with pytest.raises(DataError, match="4 photos to learn from; at least 20"):
        learn(old, [write_colours(tmp_path / "few", SHADES, 2, 1)], out, LearnOptions())
    typo = write_colours(tmp_path / "typo", {"gren": COLOURS["green"]}, 3, 1)
    with pytest.raises(
        DataError, match=r"does not know 'gren' \(did you mean green\? say so with --label-map"
    ):
        learn(old, [corrections, typo], out, LearnOptions())
    with pytest.raises(UsageError, match="--parent red=warm: the bundle knows it already"):
        learn(old, [corrections], out, LearnOptions(parents={"red": "warm"}))
    with pytest.raises(UsageError, match="--add-expert warm: there is a stage of this name"):
        learn(old, [corrections], out, LearnOptions(experts={"warm": corrections}))
    assert not out.exists()


def test_photos_can_take_the_place_of_the_memory(old: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(old, tmp_path / "bare")
    (bare / MEMORY_FILE).unlink()
    photos, out = write_colours(tmp_path / "old", COLOURS, 30, 8), tmp_path / "out"
    learn(bare, [write_colours(tmp_path / "new", SHADES, 30, 1)], out, LearnOptions(memory=(photos,)))
    assert "learned" in Bundle.load(out).provenance
    assert len(read_memory(out / MEMORY_FILE)) > 60 + 60
