"""Reading runs of every format, filtering them, and exporting what people said."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from cascade.bundle.manifest import Bundle
from cascade.errors import DataError, OutputError
from cascade.evaluation.dataset import scan
from cascade.labels import LabelTree
from cascade.review.corrections import Change, CorrectionLog
from cascade.review.export import csv_lines, export, export_folders
from cascade.review.run_index import ReviewFilter, RunIndex
from cascade.review.session import ReviewSession
from cascade.runs.read_rows import read_rows


@pytest.fixture
def session(run_copy, tiny_bundle, monkeypatch):
    monkeypatch.chdir(run_copy.parent)
    log = CorrectionLog(run_copy.with_name("log.sqlite"))
    yield ReviewSession("run", run_copy, read_rows(run_copy), Bundle.load(tiny_bundle), log, 10**8)
    log.close()


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_every_format_is_read_back_as_it_was(run_copy, tiny_bundle, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    command = ["classify", "photos", "-o", f"again.{kind}", "--bundle", str(tiny_bundle), "-q", "--explain"]
    subprocess.run([sys.executable, "-m", "cascade", *command], cwd=run_copy.parent, timeout=120)
    wanted = {row["path"]: row for row in read_rows(run_copy)}
    found = {row["path"]: row for row in read_rows(run_copy.with_name(f"again.{kind}"))}
    assert set(found) == set(wanted)
    assert len(wanted) == 40
    for path, row in found.items():
        for key in (
            "status",
            "label",
            "parent",
            "confidence",
            "reason",
            "error",
            "warnings",
            "general",
            "bundle",
        ):
            assert row[key] == wanted[path][key], (path, key)
        for key in ("top", "experts"):
            assert [one["label"] for one in row[key]] == [one["label"] for one in wanted[path][key]]


def test_names_that_a_spreadsheet_would_run_come_back(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("path,label,confidence\n'=1+1.jpg,'-x,0.5\n''quoted.jpg,bar,\n")
    rows = list(read_rows(path))
    assert [row["path"] for row in rows] == ["=1+1.jpg", "'quoted.jpg"]
    assert [row["confidence"] for row in rows] == [0.5, None]


def test_what_is_no_run_is_refused(tmp_path):
    for name, content, say in (
        ("a.txt", "x", "ends with none of"),
        ("a.csv", "label\nbar\n", "no column 'path'"),
        ("a.jsonl", "{}\n", "line 1: is no row with a path"),
        ("a.jsonl", "{\n", "line 1: is no JSON"),
        ("b.json", "{}", "no list of rows"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=say):
            list(read_rows(tmp_path / name))
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.jsonl")


def test_a_last_line_that_is_still_being_written_is_left_out(run_copy):
    whole = len(list(read_rows(run_copy)))
    with run_copy.open("a") as file:
        file.write('{"path": "half')
    assert len(list(read_rows(run_copy))) == whole


def test_filters(session):
    index = session.index

    def names(**wanted):
        return {index.paths[n] for n in index.select(ReviewFilter(**wanted))}

    everything = names()
    assert len(everything) == 40
    assert names(status="error") == {"photos/bad.png"}
    assert names(text="BAD") == {"photos/bad.png"}
    assert names(status="ok") == everything - {"photos/bad.png"}
    assert {index.answer_name(index.id_of(path)) for path in names(label="menu")} == {"menu"}
    assert {index.row(index.id_of(path))["reason"] for path in names(reason="doubtful")} == {"doubtful"}
    assert all(index.row(index.id_of(path))["experts"] for path in names(route="rooms"))
    assert names(low=0.9) | names(high=0.9) == everything
    assert names(label="nonsense") == set()
    doubt = index.select(ReviewFilter(status="ok", order="path"))
    assert [index.paths[n] for n in doubt] == sorted(index.paths[n] for n in doubt)


def test_corrections_change_label_state_and_counts(session):
    index = session.index
    menu = index.select(ReviewFilter(label="menu")).tolist()
    session.say([session.change(menu[0], "forest", 0), session.change(menu[1], None, 0)], "ann")
    assert menu[0] in index.select(ReviewFilter(label="forest"))
    assert index.select(ReviewFilter(state="corrected")).tolist() == [menu[0]]
    assert index.select(ReviewFilter(state="accepted")).tolist() == [menu[1]]
    assert session.progress()["counts"]["state"] == {"open": 38, "accepted": 1, "corrected": 1}
    assert session.progress()["accuracy"]["looked_at"] == 2
    session.undo("ann", None)
    assert session.progress()["counts"]["state"]["open"] == 40


def test_accepting_says_that_the_answer_is_right_as_it_is(session):
    index = session.index
    answers = {index.answer_name(n): n for n in range(40)}
    for name in ("indoor", "unknown", "menu"):
        session.say([session.change(answers[name], None, 0)], "ann")
        state = session.log.state(index.paths[answers[name]])
        assert (state.kind, state.label, state.previous) == ("accept", name, name)
        assert index.is_right()[answers[name]]
    # a broader label is right when a label below it is
    broad = answers["indoor"]
    state = session.log.state(index.paths[broad])
    session.say([session.change(broad, "kitchen", state.id)], "ann")
    assert index.is_right()[broad]
    with pytest.raises(ValueError, match="no answer that could be accepted"):
        session.change(answers[None], None, 0)
    with pytest.raises(ValueError, match="there is no label 'castle'"):
        session.change(answers[None], "castle", 0)


def test_accepting_many_leaves_out_what_was_reviewed_and_is_no_evidence(session):
    index = session.index
    menu = index.select(ReviewFilter(label="menu")).tolist()
    session.say([session.change(menu[0], "forest", 0)], "ann")
    changed = session.accept_above(ReviewFilter(), 0.9, "ann")
    assert menu[0] not in changed
    assert changed
    assert all(index.confidence[n] >= 0.9 for n in changed)
    assert session.progress()["accuracy"]["looked_at"] == 1
    assert session.accept_above(ReviewFilter(), 0.9, "ann") == []


def test_the_csv_names_what_was_said(session):
    index = session.index
    first, second = index.select(ReviewFilter(label="menu")).tolist()[:2]
    session.say([session.change(first, "unknown", 0), session.change(second, None, 0)], "ann")
    rows = list(csv.DictReader(csv_lines(index)))
    assert [(row["path"], row["label"], row["previous"], row["kind"]) for row in rows] == sorted(
        [(index.paths[first], "unknown", "menu", "unknown"), (index.paths[second], "menu", "menu", "accept")]
    )
    assert {row["label"]: row["level"] for row in rows} == {"unknown": "unknown", "menu": "label"}
    target = session.run.with_name("out.csv")
    assert "2 photos" in export(index, target)
    with pytest.raises(OutputError, match="exists already"):
        export(index, target)


def test_folders_are_what_evaluation_takes(session, tmp_path):
    index = session.index
    changes = [session.change(n, None, 0) for n in range(40) if index.answer_name(n)]
    session.say(changes, "ann")
    counts = export_folders(index, tmp_path / "labelled")
    kinds = Counter(change.label for change in changes)
    assert counts["no label fits"] == kinds["unknown"] > 0
    broader = set(index.tree.parents) - set(index.tree.labels)
    assert counts["broader label only"] == sum(kinds[label] for label in broader) > 0
    assert counts["sorted"] == sum(kinds[label] for label in index.tree.labels) > 20
    dataset = scan(tmp_path / "labelled")
    said = {entry.path: entry.label for entry in session.log.states().values()}
    for photo in dataset.photos:
        assert said[f"photos/{photo.path.name}"] == photo.label
    with pytest.raises(OutputError, match="needs a new folder"):
        export_folders(index, tmp_path / "labelled")


def test_a_hundred_thousand_rows_are_quick(tmp_path):
    labels = tuple(f"label {n}" for n in range(40))
    tree = LabelTree(labels, {label: f"group {label[-1]}" for label in labels})
    random = np.random.default_rng(2)

    def rows():
        for n in range(100_000):
            p = float(random.beta(4, 1.5))
            top = [
                {"label": labels[n % 40], "probability": p},
                {"label": labels[n % 39], "probability": 1 - p},
            ]
            row = {
                "path": f"folder/{n // 1000}/{n}.jpg",
                "label": labels[n % 40],
                "confidence": p,
                "top": top,
            }
            yield row | {"reason": "leaf", "status": "ok", "experts": [], "bundle": "b"}

    log = CorrectionLog(tmp_path / "log.sqlite")
    index = RunIndex(rows(), tree, log)
    index.select(ReviewFilter())
    started = time.perf_counter()
    for wanted in (ReviewFilter(), ReviewFilter(label="label 7", low=0.3), ReviewFilter(text="99")):
        assert len(index.select(wanted)) > 0
    index.counts()
    # Measured at 0.1 s on a quiet machine; the limit allows for a very busy one.
    assert time.perf_counter() - started < 5
    log.append([Change(path, "bulk", "label 1", "label 1", 0) for path in index.paths[:50_000]], "ann")
    assert len(index.update(log.states())) == 50_000
    assert json.dumps(index.row(99_999))
    log.close()


def test_a_folder_is_classified_first_and_the_command_exports(run_copy, tiny_bundle):
    def review(*arguments):
        command = [sys.executable, "-m", "cascade", "review", *arguments, "--bundle", str(tiny_bundle)]
        return subprocess.run(command, cwd=run_copy.parent, capture_output=True, text=True, timeout=120)

    result = review("photos", "--export", "labelled.csv")
    assert result.returncode == 0, result.stderr
    assert "labelled.csv: 0 photos" in result.stderr
    assert len(list(read_rows(run_copy.with_name("photos.answers.jsonl")))) == 40
    # the same again goes on with the run that is there
    log = CorrectionLog(run_copy.with_name("photos.answers.jsonl.corrections.sqlite"))
    log.append([Change("photos/00.png", "label", "kitchen", "bedroom", 0)], "ann")
    log.close()
    result = review("photos", "--export", "labelled")
    assert result.returncode == 0, result.stderr
    assert "sorted 1" in result.stderr
    assert (run_copy.parent / "labelled" / "kitchen" / "00.png").exists()
    missing = review("nothing.jsonl")
    assert missing.returncode == 2
    assert "nothing.jsonl" in missing.stderr
