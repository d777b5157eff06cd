"""`cascade.runs.watch`: photos are handed out once they have stopped growing."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from cascade.errors import MissingExtraError
from cascade.imaging.files import FindOptions, find_changed, look_at
from cascade.runs import watch
from cascade.runs.watch import Settling, settled_batches, watch_batches

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 40


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "drop"
    root.mkdir()
    return root


def make(path, age=100.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(JPEG)
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_a_growing_file_waits(folder):
    path = folder / "a.jpg"
    settling = Settling(2.0)
    path.write_bytes(b"1")
    settling.see(look_at(str(path)), now=10.0)
    assert settling.settled(11.9) == []
    path.write_bytes(b"12")  # grew, without a further event
    assert settling.settled(12.5) == []
    assert settling.settled(14.4) == []
    assert [found.size for found in settling.settled(14.6)] == [2]
    assert settling.settled(99.0) == []  # and is handed out once


def test_a_file_that_vanishes_is_forgotten(folder):
    path = folder / "a.jpg"
    path.write_bytes(b"1")
    settling = Settling(2.0)
    settling.see(look_at(str(path)), now=0.0)
    path.unlink()
    assert settling.settled(3.0) == []


class Script:
    """Changes as watchfiles reports them, with something done before each."""

    def __init__(self, *steps) -> None:
        self._steps = steps

    def __iter__(self):
        for action, changed in self._steps:
            action()
            yield {(1, str(path)) for path in changed}


def nothing():
    pass


def run(folder, *steps, stopped=lambda: False, **options):
    return [
        [os.path.relpath(found.path, folder) for found in batch]
        for batch in settled_batches([str(folder)], FindOptions(**options), stopped, Script(*steps), 0.0)
    ]


def test_what_is_there_and_then_what_comes(folder):
    make(folder / "old.jpg")
    batches = run(
        folder,
        (nothing, []),
        (lambda: make(folder / "new.jpg"), [folder / "new.jpg"]),
        (lambda: (folder / "notes.txt").write_text("no photo"), [folder / "notes.txt"]),
        (nothing, []),
    )
    assert batches == [["old.jpg"], ["new.jpg"]]


def test_a_folder_that_arrives_whole(folder, tmp_path):
    make(tmp_path / "elsewhere" / "deep" / "a.jpg")
    batches = run(
        folder,
        (nothing, []),
        (lambda: shutil.move(tmp_path / "elsewhere", folder / "in"), [folder / "in"]),
    )
    assert batches == [[], ["in/deep/a.jpg"]]


def test_what_was_written_just_now_waits_at_the_start_too(folder):
    make(folder / "old.jpg")
    make(folder / "young.jpg", age=0.0)
    found = settled_batches([str(folder)], FindOptions(), lambda: False, Script((nothing, [])), 1.0)
    assert [Path(one.path).name for one in next(iter(found))] == ["old.jpg"]


def test_the_rules_are_those_of_a_scan(folder, tmp_path):
    make(folder / ".cache" / "thumb.jpg")
    make(folder / "a.txt")
    (folder / "a.txt").write_text("text")
    outside = make(tmp_path / "outside.jpg")
    (folder / "link.jpg").symlink_to(outside)

    def names(path, **options):
        found = find_changed(str(folder), str(path), FindOptions(**options))
        return [os.path.relpath(one.path, folder) for one in found]

    assert names(folder / ".cache" / "thumb.jpg") == []
    assert names(folder / ".cache" / "thumb.jpg", hidden=True) == [".cache/thumb.jpg"]
    assert names(folder / "a.txt") == []
    assert names(folder / "link.jpg") == []
    assert names(folder / "link.jpg", follow_links=True) == ["link.jpg"]
    assert names(tmp_path / "outside.jpg") == []
    assert names(folder / "gone.jpg") == []
    assert names(folder) == []
    assert names(folder, hidden=True) == [".cache/thumb.jpg"]


def test_stopping_ends_it(folder):
    assert run(folder, (nothing, []), stopped=lambda: True) == []


def test_for_real(folder):
    pytest.importorskip("watchfiles")
    make(folder / "old.jpg")
    deadline = time.monotonic() + 120
    batches = watch_batches(
        [str(folder)], FindOptions(), lambda: time.monotonic() > deadline, settle_seconds=0.3
    )
    assert [Path(one.path).name for one in next(batches)] == ["old.jpg"]
    make(folder / "sub" / "new.jpg")
    for batch in itertools.islice(batches, 1):
        assert [one.path for one in batch] == [str(folder / "sub" / "new.jpg")]
    assert time.monotonic() < deadline


def test_without_watchfiles(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingExtraError, match=r"cascade-vision\[watch\]"):
        watch_batches([str(folder)], FindOptions(), lambda: True)
    assert watch.SETTLE_SECONDS == 2.0
