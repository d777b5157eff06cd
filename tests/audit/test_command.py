"""`cascade audit` from photos to findings, page, decisions and a clean copy."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import COLOURS, Ran
from made_photos import scene
from PIL import Image

KEYS = {
    "kind", "path", "other", "label", "suggested", "score", "split", "other_label", "other_split", "detail",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photos around the colours that the tiny bundle knows, with one error of each kind."""
    for name in ("cleanlab", "jinja2", "scipy", "sklearn"):
        pytest.importorskip(name, reason="needs the extra audit: pip install -e '.[audit]'")
    home = tmp_path / "data"
    for number, (label, (_, colour)) in enumerate(COLOURS.items()):
        for split, count in (("train", 12), ("test", 4)):
            (home / split / label).mkdir(parents=True)
            for place in range(count):
                seed = 1000 * number + 10 * place + (split == "test")
                scene(seed, tint=colour).save(home / split / label / f"{place:02}.png")
    train, test = home / "train", home / "test"
    (train / "bedroom" / "empty.jpg").touch()
    shutil.copy(train / "beach" / "03.png", test / "beach" / "same.png")
    mirrored = Image.open(test / "forest" / "01.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(train / "forest" / "copy.jpg")
    shutil.move(train / "beach" / "05.png", train / "kitchen" / "wrong.png")
    shutil.copy(train / "menu" / "06.png", train / "menu" / "named.jpg")  # and its original
    (train / "menu" / "06.png").unlink()
    return home


def by_kind(found: list[dict]) -> dict[str, list[tuple[str, str | None]]]:
    kinds: dict[str, list[tuple[str, str | None]]] = {}
    for one in found:
        name = one["path"] and "/".join(Path(one["path"]).parts[-3:])
        other = "/".join(Path(one["other"]).parts[-3:]) if one["other"] else None
        kinds.setdefault(one["kind"], []).append((name, other))
    return kinds


def test_an_audit_and_a_clean_copy(data: Path, run_cli: Callable[..., Ran], tmp_path: Path) -> None:
    ran = run_cli("audit", data, "--json", tmp_path / "found.json")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(set(one) == KEYS for one in found)
    kinds = by_kind(found)
    assert kinds["corrupt"] == [("train/bedroom/empty.jpg", None)]
    assert kinds["exact_duplicate"] == [("train/beach/03.png", "test/beach/same.png")]
    assert kinds["near_duplicate"] == [("train/forest/copy.jpg", "test/forest/01.png")]
    assert kinds["wrong_extension"] == [("train/menu/named.jpg", None)]
    assert ("train/kitchen/wrong.png", None) in kinds["mislabelled"]
    (wrong,) = (one for one in found if one["kind"] == "mislabelled" and "wrong.png" in one["path"])
    assert (wrong["label"], wrong["suggested"]) == ("kitchen", "beach")
    assert re.search(r"near_duplicate +1 +1 +a changed copy", ran.out)
    assert "duplicates: 2 across splits, 0 across labels" in ran.out

    out = tmp_path / "data.audit"
    page = (out / "audit.html").read_text()
    assert page.count("data:image/webp;base64,") >= 6
    assert not re.search(r"(src|href)=.?(https?:)?//", page)
    assert json.loads((out / "findings.json").read_text()) == found

    ran = run_cli("audit", data, "--apply", out / "decisions.csv")
    assert ran.code == 0, ran.err
    clean = tmp_path / "data.clean"
    assert not (clean / "train/bedroom/empty.jpg").exists()
    assert not (clean / "train/beach/03.png").exists()
    assert (clean / "test/beach/same.png").is_symlink()
    (undo,) = clean.glob("undo-*.jsonl")
    assert run_cli("undo", undo).code == 0
    assert not any(clean.iterdir())
    assert (data / "train/beach/03.png").is_file()


def test_a_second_audit_reads_nothing_again_and_keeps_decisions(
    data: Path, run_cli: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("audit", data).code == 0
    decisions = tmp_path / "data.audit" / "decisions.csv"
    lines = decisions.read_text().splitlines(keepends=True)
    changed = [line.replace("remove,remove,corrupt", "keep,remove,corrupt") for line in lines]
    assert changed != lines
    decisions.write_text("".join(changed))
    from cascade.audit.examine import Examiner

    monkeypatch.setattr(Examiner, "examine", lambda self, path: pytest.fail(f"{path} was read again"))
    ran = run_cli("audit", data, "--json", "-")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)
    assert "keep,remove,corrupt" in decisions.read_text()


def test_labels_from_a_manifest(run_cli: Callable[..., Ran], tmp_path: Path) -> None:
    pytest.importorskip("cleanlab", reason="needs the extra audit: pip install -e '.[audit]'")
    home = tmp_path / "flat"
    home.mkdir()
    for name in "ab":
        scene(ord(name)).save(home / f"{name}.png")
    (home / "manifest.csv").write_text(
        "file,split,label,source\na.png,train,bar,x\nb.png,test,bar,x\ngone.png,train,bar,x\n"
    )
    ran = run_cli("audit", home, "--json", "-", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    kinds = {one["kind"]: one for one in json.loads(ran.out)}
    assert kinds["corrupt"]["path"].endswith("gone.png")
    assert kinds["few_photos"]["label"] == "bar"


def test_a_folder_without_photos(run_cli: Callable[..., Ran], tmp_path: Path) -> None:
    pytest.importorskip("cleanlab", reason="needs the extra audit: pip install -e '.[audit]'")
    (tmp_path / "empty").mkdir()
    ran = run_cli("audit", tmp_path / "empty")
    assert ran.code == 2
    assert "holds no photos; expected LABEL/FILE" in ran.err


def test_what_cascade_did_not_write_is_not_overwritten(
    run_cli: Callable[..., Ran], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "data.audit"
    out.mkdir()
    (out / "decisions.csv").write_text("my,own\n")
    ran = run_cli("audit", data)
    assert ran.code == 2
    assert "was not written by cascade" in ran.err
    assert (out / "decisions.csv").read_text() == "my,own\n"


def test_a_missing_extra_is_named(
    run_cli: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cleanlab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = run_cli("audit", tmp_path)
    assert ran.code == 2
    assert "pip install 'cascade-vision[audit]'" in ran.err
