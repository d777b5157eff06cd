"""`cascade.runs.progress` and `cascade.runs.summary`: what people see while and after a run."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from pathlib import Path

import pytest

from cascade import ErrorInfo, Opinion, Prediction
from cascade.cli.classify import classify
from cascade.errors import UsageError
from cascade.runs import progress as module
from cascade.runs.options import ClassifyOptions
from cascade.runs.progress import Progress
from cascade.runs.rows import make_row
from cascade.runs.summary import Summary, duration


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def counted(progress):
    """Wait for the thread that counts."""
    deadline = time.time() + 10
    while progress.total is None and time.time() < deadline:
        time.sleep(0.001)


def test_plain_lines_now_and_then(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(quiet=False, count=lambda: 1000) as progress:
        counted(progress)
        for number in range(250):
            clock.now += 0.1
            progress.advance(failed=number % 100 == 99)
    assert capsys.readouterr().err.splitlines() == [
        "100 of 1,000 photos, 10.0 photos/s, 1 failed, about 1 min 30 s left",
        "200 of 1,000 photos, 10.0 photos/s, 2 failed, about 1 min 20 s left",
    ]


def test_without_a_count(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(quiet=False) as progress:
        clock.now += 20
        progress.advance(failed=False)
    assert capsys.readouterr().err == "1 photos, 0.1 photos/s, 0 failed\n"


def test_counting_that_fails_is_no_reason_to_stop(monkeypatch, capsys):
    def vanished():
        raise UsageError("photos: no such file or folder")

    with Progress(quiet=False, count=vanished):
        for thread in threading.enumerate():
            if thread.name == "count":
                thread.join()
    assert capsys.readouterr().err == ""


def test_what_was_done_before_is_not_waited_for(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(quiet=False, count=lambda: 100) as progress:
        counted(progress)
        for _ in range(90):
            progress.skip()
        clock.now += 10
        progress.advance(failed=False)
    assert capsys.readouterr().err.startswith("1 of 10 photos")


def test_quiet(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(quiet=True, count=lambda: pytest.fail("nobody wants to know")) as progress:
        clock.now += 100
        progress.advance(failed=True)
        progress.skip()
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock = Clock(monkeypatch)
    with Progress(quiet=False, count=lambda: 4) as progress:
        counted(progress)
        for failed in (False, True):
            clock.now += 1
            progress.advance(failed=failed)
        assert progress.bar.tasks[0].completed == 2
        assert progress.bar.tasks[0].total == 4
        assert progress.bar.tasks[0].fields == {"rate": "1.0 photos/s", "errors": "1 failed"}
    assert progress.bar is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (59.94, "59.9 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (90000, "25 h 00 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_summary_counts():
    summary = Summary()
    good = {"confidence": 0.9, "top": (("menu", 0.9),)}
    summary.add(make_row(Prediction(path="a", label="menu", **good), "b"))
    summary.add(
        make_row(Prediction(path="b", label="menu", experts=(Opinion("rooms", "x", 0.5),), **good), "b")
    )
    summary.add(make_row(Prediction(path="c", label="beach", warnings=("truncated: half",), **good), "b"))
    for code in ("empty", "empty", "damaged"):
        summary.add(make_row(Prediction(path="d", status="error", error=ErrorInfo(code, "x")), "b"))
    summary.already_done = 1200
    assert summary.failed == 3
    assert summary.lines(2.0, {"not photos": 7, "hidden": 1}) == [
        "6 photos in 2.0 s (3.0 photos/s); 1,200 were done before",
        "labels: menu 2, beach 1",
        "experts were asked about 33.3% of the photos",
        "1 photo classified with a warning",
        "3 photos failed: empty 2, damaged 1",
        "passed over: not photos 7, hidden 1",
    ]
    assert Summary().lines(0.0) == ["0 photos in 0.0 s (0.0 photos/s)"]


#: What the command hands over when only a path is given.
GIVEN = classify.make_context("classify", ["photos"]).params


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"watch": True, "paths": ("-",)}, "--watch needs folders"),
        ({"fields": "path"}, "--fields is about jsonl, csv and parquet"),
        ({"yes": True}, "--yes confirms --sort-into"),
        ({"resume": True}, "need a file"),
    ],
)
def test_options_that_contradict_each_other(changes, said):
    with pytest.raises(UsageError, match=said):
        ClassifyOptions(**GIVEN | changes)


@pytest.mark.parametrize(
    ("output", "name"),
    [("-", "table"), ("a.csv", "csv"), ("a.JSONL", "jsonl"), ("a.ndjson", "jsonl"), ("a.parquet", "parquet")],
)
def test_formats_by_ending(output, name):
    assert ClassifyOptions(**GIVEN | {"output": output}).row_format == name
    assert ClassifyOptions(**GIVEN | {"output": "x.csv", "format_name": "jsonl"}).row_format == "jsonl"


#: Every option, by whether another value changes rows; the value is one that differs from `GIVEN`.
CHANGES_ROWS = {
    "format_name": "csv", "explain": True, "ask": "never", "operating_point": "strict", "max_error": 0.1,
    "budget": 0.5, "label_set": 0.9, "top_k": 3, "by_content": True, "image_column": "photo",
}  # fmt: skip
CHANGES_NO_ROW = {
    "workers": 2, "quiet": True, "output": "x.txt", "verbose": 1, "hidden": True, "follow_links": True,
    "gallery": Path("page.html"), "sort_into": Path("sorted"), "sort_mode": "move", "write_xmp": True,
    "paths": ("other",), "max_pixels": 5, "archives": True,
}  # fmt: skip
#: In it by themselves: the hash of the bundle, the chosen fields, the variant that runs; and options
#: that only say how a run begins or is fed, or who works (the size of a part is remembered on a cluster).
ELSEWHERE = {"bundle", "fields", "variant", "resume", "restart", "watch", "null", "yes"} | {
    "retry_failed",
    "dry_run",
    "engine",
    "ray_address",
    "part_size",
}


def test_every_option_that_changes_rows_is_in_the_fingerprint():
    options = {field.name for field in dataclasses.fields(ClassifyOptions)}
    assert options - CHANGES_NO_ROW.keys() - ELSEWHERE == CHANGES_ROWS.keys()
    before = ClassifyOptions(**GIVEN).fingerprint("00", ("path",), "exact")
    for name, value in CHANGES_ROWS.items():
        assert ClassifyOptions(**GIVEN | {name: value}).fingerprint("00", ("path",), "exact") != before, name
    for name, value in CHANGES_NO_ROW.items():
        assert ClassifyOptions(**GIVEN | {name: value}).fingerprint("00", ("path",), "exact") == before, name
    for other in (("11", ("path",), "exact"), ("00", ("label",), "exact"), ("00", ("path",), "int8")):
        assert ClassifyOptions(**GIVEN).fingerprint(*other) != before
