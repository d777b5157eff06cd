"""`cascade.runs.sorting`: photos into label folders and back, never over anything."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from cascade import ErrorInfo, Prediction
from cascade.errors import OutputError, UsageError
from cascade.runs import sorting
from cascade.runs.rows import make_row
from cascade.runs.sorting import check_target, folder_name, plan_sorting, sort_photos, undo_sorting


def row(path, label):
    return make_row(Prediction(path=os.fspath(path), label=label, confidence=0.9), "b")


@pytest.fixture
def album(tmp_path):
    """Two photos of the same name, one whose name is no text; rows with an error among them."""
    rows = []
    for name, label, content in (
        ("one/a.jpg", "beach", b"one"),
        ("two/a.jpg", "beach", b"two"),
        ("two/b\udcff.jpg", "menu", b"three"),
    ):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        rows.append(row(path, label))
    broken = Prediction(path="x.jpg", status="error", error=ErrorInfo("empty", "x"))
    return [*rows, make_row(broken, "b")]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("undo-")
    }


def test_the_plan(album):
    assert plan_sorting(album) == {"beach": 2, "menu": 1}


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_there_and_back(album, tmp_path, mode):
    before = snapshot(tmp_path / "album")
    undo, counts = sort_photos(album, tmp_path / "sorted", mode)
    assert counts == {"sorted": 3}
    assert snapshot(tmp_path / "sorted") == {
        "beach/a.jpg": b"one",
        "beach/a (2).jpg": b"two",
        "menu/b\udcff.jpg": b"three",
    }
    assert snapshot(tmp_path / "album") == ({} if mode == "move" else before)
    assert (tmp_path / "sorted" / "beach" / "a.jpg").is_symlink() is (mode == "link")
    done = undo_sorting(undo)
    assert (done.undone, done.left) == (3, ())
    assert snapshot(tmp_path / "album") == before
    assert list((tmp_path / "sorted").iterdir()) == []


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_sorting_again_adds_nothing(album, tmp_path, mode):
    sort_photos(album, tmp_path / "sorted", mode)
    before = snapshot(tmp_path / "sorted")
    _, counts = sort_photos(album, tmp_path / "sorted", mode)
    assert counts == {"already there": 3}
    assert snapshot(tmp_path / "sorted") == before


def test_moving_again_finds_nothing_to_move(album, tmp_path):
    sort_photos(album, tmp_path / "sorted", "move")
    _, counts = sort_photos(album, tmp_path / "sorted", "move")
    assert counts == {"missing": 3}


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_nothing_is_overwritten(album, tmp_path, mode):
    taken = tmp_path / "sorted" / "beach" / "a.jpg"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"precious")
    undo, _ = sort_photos(album, tmp_path / "sorted", mode)
    assert taken.read_bytes() == b"precious"
    assert (taken.parent / "a (3).jpg").read_bytes() == b"two"
    undo_sorting(undo)
    assert snapshot(tmp_path / "sorted") == {"beach/a.jpg": b"precious"}


def test_moving_to_another_disk_copies_first(album, tmp_path, monkeypatch):
    real = Path.replace

    def other_disk(self, target):
        if self.suffix != ".new":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", other_disk)
    sort_photos(album, tmp_path / "sorted", "move")
    assert len(snapshot(tmp_path / "sorted")) == 3
    assert snapshot(tmp_path / "album") == {}


def test_a_disk_that_fills_up_loses_no_photo(album, tmp_path, monkeypatch):
    before = snapshot(tmp_path / "album")

    def full(source, target):
        Path(target).write_bytes(b"t")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(sorting.shutil, "copy2", full)
    with pytest.raises(OutputError, match="No space left on device"):
        sort_photos(album, tmp_path / "sorted", "copy")
    assert snapshot(tmp_path / "album") == before
    assert snapshot(tmp_path / "sorted") == {}


def test_undo_after_a_kill_between_two_steps(album, tmp_path):
    undo, _ = sort_photos(album[:1], tmp_path / "sorted", "move")
    name = tmp_path / "sorted" / "beach" / "a (2).jpg"
    step = {"mode": "move", "source": str(tmp_path / "album" / "two" / "a.jpg"), "target": str(name)}
    with undo.open("a") as file:
        file.write(json.dumps(step) + '\n{"mode": "mo')  # half a line
    name.touch()  # the name was taken, the photo not yet moved
    assert undo_sorting(undo).left == ()
    assert (tmp_path / "album" / "one" / "a.jpg").read_bytes() == b"one"
    assert (tmp_path / "album" / "two" / "a.jpg").read_bytes() == b"two"
    assert not name.exists()


def test_undo_leaves_what_was_changed(album, tmp_path):
    undo, _ = sort_photos(album, tmp_path / "sorted", "copy")
    (tmp_path / "sorted" / "beach" / "a.jpg").write_bytes(b"edited")
    done = undo_sorting(undo)
    assert done.undone == 2
    assert [Path(path).name for path, _ in done.left] == ["a.jpg"]
    assert (tmp_path / "sorted" / "beach" / "a.jpg").read_bytes() == b"edited"
    assert undo.exists()


def test_undo_does_not_overwrite_a_new_file(album, tmp_path):
    undo, _ = sort_photos(album, tmp_path / "sorted", "move")
    (tmp_path / "album" / "one" / "a.jpg").write_bytes(b"new")
    done = undo_sorting(undo)
    assert done.undone == 2
    assert "its old place is taken" in done.left[0][1]
    assert (tmp_path / "album" / "one" / "a.jpg").read_bytes() == b"new"


@pytest.mark.parametrize(
    "content", ["hello", "[1]\n", '{"mode": "delete", "source": "/a", "target": "/b"}\n']
)
def test_what_is_no_undo_file(tmp_path, content):
    path = tmp_path / "undo.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="no undo file"):
        undo_sorting(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("beach", "beach"),
        ("../../etc", "_.._etc"),
        ("..", "_"),
        ("a/b\\c:d", "a_b_c_d"),
        ("cuộc sống", "cuộc sống"),
    ],
)
def test_labels_are_names_of_one_folder(label, name):
    assert folder_name(label) == name
    assert Path("sorted", folder_name(label)).parent == Path("sorted")


def test_a_target_inside_the_photos_is_refused(tmp_path):
    check_target(tmp_path / "sorted", [str(tmp_path / "album")])
    with pytest.raises(UsageError, match="take one outside"):
        check_target(tmp_path / "album" / "sorted", [str(tmp_path / "album")])


def test_a_target_that_cannot_be_made(album, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot sort"):
        sort_photos(album, tmp_path / "file" / "sorted", "link")
