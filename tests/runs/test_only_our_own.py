"""What a command may replace: only what cascade wrote, and never what a running process is writing."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from cascade.errors import OutputError
from cascade.ownership import (
    HTML_MARK,
    check_bundle_target,
    check_file_target,
    check_writable,
    empty_scratch,
    is_marked,
    marked,
)
from cascade.runs.crash_guard import CrashGuard
from cascade.runs.durable_output import open_output
from cascade.runs.journal import Journal
from cascade.runs.writers import JsonlFormat


def opened(path, **options):
    given = {"resume": False, "restart": False, "remember": False} | options
    return open_output(path, JsonlFormat(["path", "label"]), {"a": "1"}, **given)


@pytest.mark.parametrize("option", ["restart", "resume"])
def test_a_running_process_keeps_its_output(tmp_path, option):
    output = tmp_path / "rows.jsonl"
    durable = opened(output)
    with CrashGuard(output, durable.journal):
        before = output.read_bytes()
        with pytest.raises(
            OutputError, match=rf"another cascade \(process {os.getpid()}\).*kill {os.getpid()}"
        ):
            opened(output, **{option: True})
        assert output.read_bytes() == before
    durable.close()
    opened(output, **{option: True}).close()


def test_restart_leaves_a_photo_alone(run_cli, photo, tmp_path):
    path = photo("album/b.jpg")
    before = path.read_bytes()
    for options in (["-f", "table"], ["-f", "jsonl"], []):
        ran = run_cli("classify", tmp_path / "album", "-o", path, "--restart", *options)
        assert ran.code == 2, ran.err
        assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["b.jpg"]


def test_restart_leaves_alone_what_took_the_place_of_the_output(run_cli, photo, tmp_path):
    output = tmp_path / "rows.csv"
    run_cli("classify", photo(), "-o", output)
    output.write_text("thesis")
    ran = run_cli("classify", photo(), "-o", output, "--restart")
    assert ran.code == 2
    assert "is not what cascade wrote there" in ran.err
    assert output.read_text() == "thesis"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt", "rows.parquet"])
@pytest.mark.parametrize("journal", [True, False])
def test_restart_knows_every_format_for_ours(run_cli, photo, tmp_path, name, journal):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    output = tmp_path / name
    run_cli("classify", photo("album/a.jpg"), "-o", output)
    assert is_marked(output)
    if not journal:
        (tmp_path / f"{name}.state").unlink()
    photo("album/b.jpg")
    ran = run_cli("classify", tmp_path / "album", "-o", output, "--restart")
    assert ran.code == 0, ran.err


def test_a_database_of_another_program_is_no_journal(tmp_path):
    path = tmp_path / "rows.jsonl.state"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE friends (name)")
        database.execute("INSERT INTO friends VALUES ('Ada')")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="database of another program"):
        opened(tmp_path / "rows.jsonl", restart=True)
    assert path.read_bytes() == before


def test_a_damaged_journal_of_ours_is_begun_again(tmp_path):
    output = tmp_path / "rows.jsonl"
    opened(output).close()
    state = tmp_path / "rows.jsonl.state"
    state.write_bytes(state.read_bytes()[:100] + b"\xff" * 5000)
    with pytest.raises(OutputError, match="is damaged; begin again with --restart"):
        opened(output, resume=True)
    opened(output, restart=True).close()
    assert len(Journal(state)) == 0


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_evaluate_refuses_before_it_begins(run_cli, tmp_path, photo, monkeypatch, option):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    photo("labelled/beach/a.jpg", "beach")
    target = tmp_path / ("x.jpg" if option == "--json" else "out/report.html")
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"\xff\xd8 mine")
    monkeypatch.setattr(
        "cascade.evaluation.evaluate.evaluate_folder", lambda *_, **__: pytest.fail("work began")
    )
    given = target if option == "--json" else target.parent
    ran = run_cli("evaluate", tmp_path / "labelled", option, given)
    assert ran.code == 2
    assert "was not written by cascade" in ran.err
    assert target.read_bytes() == b"\xff\xd8 mine"


def test_marks(tmp_path):
    path = tmp_path / "file"
    for text, ours in (
        ("", True),
        (json.dumps(marked({"a": 1}), indent=2), True),
        (json.dumps(marked({"a": 1})), True),
        ('{"a": 1}', False),
        (f"<!doctype html>\n<head>{HTML_MARK}", True),
        ("<!doctype html>\n<p>cascade", False),
        ("path,label,schema,bundle\n", True),
        ("path,label\n", False),
        ("# notes\nlabel  confidence  path\n", False),
        ("label  confidence  path\n", False),
        ("my bundle of notes, schema\n", False),
    ):
        path.write_text(text)
        assert is_marked(path) is ours, text
    path.write_bytes(b"\xff\xd8\xff" + bytes(100))
    assert not is_marked(path)


def test_a_bundle_gives_way_only_where_asked_and_only_alone(tiny_bundle, tmp_path):
    import shutil

    home = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    check_bundle_target(tmp_path / "new", replace=False)
    with pytest.raises(OutputError, match="holds a bundle already; replace it with --replace"):
        check_bundle_target(home, replace=False)
    check_bundle_target(home, replace=True)
    (home / "NOTES.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds NOTES\.txt, which belongs to no bundle"):
        check_bundle_target(home, replace=True)
    (home / "bundle.json").unlink()
    with pytest.raises(OutputError, match="is not empty and holds no bundle"):
        check_bundle_target(home, replace=True)
    with pytest.raises(OutputError, match=r"holds NOTES\.txt"):
        empty_scratch(home)
    (home / "NOTES.txt").unlink()
    empty_scratch(home)
    assert not home.exists()


def test_taking_a_place_keeps_what_is_beside_it(tiny_bundle, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    import shutil

    from cascade.training.export.packaging import take_place

    home = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    precious = tmp_path / "bundle.old" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    new = shutil.copytree(tiny_bundle, tmp_path / "new")
    (new / "README.md").write_text("new")
    take_place(new, home)
    assert (home / "README.md").read_text() == "new"
    assert precious.read_text() == "years of work"
    (home / "NOTES.txt").write_text("mine")
    with pytest.raises(OutputError, match="would be lost"):
        take_place(shutil.copytree(tiny_bundle, tmp_path / "newer"), home)
    assert (home / "NOTES.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["train", "calibrate"])
def test_training_commands_refuse_before_they_begin(run_cli, tiny_bundle, tmp_path, command):
    pytest.importorskip("torch")
    import shutil

    home = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    ran = run_cli(command, tmp_path, "--out", home)
    assert ran.code == 2
    assert "replace it with --replace" in ran.err


def test_targets_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="no such folder; make it first"):
        check_file_target(tmp_path / "none" / "x.json", "--json")
    with pytest.raises(OutputError, match="is a folder"):
        check_file_target(tmp_path, "--json")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="may not be written"):
        check_writable(Path(tmp_path), "--gallery")
