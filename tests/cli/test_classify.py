"""`cascade classify` as its users meet it: exact output, exit codes, what is refused."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from cascade import Cascade
from cascade.runs.rows import FIELDS


class Stdin:
    """Standard input with these bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.fixture
def album(photo, tmp_path):
    """Five photos and a file that is none, in two folders."""
    photo("album/beach.jpg", "beach")
    photo("album/mixed.png", (225, 92, 40))
    photo("album/nothing.png", (128, 128, 128))
    photo("album/sub/menu.webp", "menu", size=(40, 90))
    (tmp_path / "album" / "broken.jpg").write_bytes(b"this is no photo")
    (tmp_path / "album" / "notes.txt").write_text("not a photo either")
    return tmp_path / "album"


def test_table(run_cli, album, monkeypatch):
    monkeypatch.chdir(album.parent)
    ran = run_cli("classify", "album")
    assert ran.code == 1
    head, *lines = ran.out.splitlines()
    assert head.startswith("# tiny 1.2.3 sha256:")
    assert lines == [
        "label    confidence  path",
        "beach         1.000  album/beach.jpg",
        "error                album/broken.jpg  "
        "[not_an_image: the content is not an image in a supported format]",
        "indoor        1.000  album/mixed.png",
        "unknown       0.391  album/nothing.png",
        "menu          1.000  album/sub/menu.webp",
    ]
    assert "Traceback" not in ran.err


def test_json_rows_are_predictions(run_cli, album, tiny_bundle):
    ran = run_cli("classify", album, "--format", "jsonl", "--top-k", "2", "--quiet")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [list(row) for row in rows] == [list(FIELDS)] * 5
    cascade = Cascade(tiny_bundle, top_k=2)
    for row in rows:
        expected = cascade.predict(row["path"]).to_dict()
        for key in set(expected) - {"ms"}:
            assert row[key] == expected[key], key
        assert row["schema"] == 1
        assert row["bundle"].startswith("tiny 1.2.3 sha256:")
    assert ran.err == ""


def test_csv_has_names_first(run_cli, album):
    ran = run_cli("classify", album, "-f", "csv", "--fields", "label,path,error", "-q")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert list(rows[0]) == ["label", "path", "error_code", "error_message"]
    assert [row["label"] for row in rows] == ["beach", "", "indoor", "unknown", "menu"]
    assert rows[1]["error_code"] == "not_an_image"


def test_explain_says_who_was_asked(run_cli, album):
    out = run_cli("classify", album / "mixed.png", "--explain").out.splitlines()
    assert out[2].startswith("indoor ")
    assert [line.split()[0] for line in out[3:]] == ["general", "rooms", "answer", "top", "ms"]
    assert "parent: no label is sure enough" in out[5]


def test_never_asks_and_always_asks(run_cli, album):
    for mode, asked in (("never", 0), ("always", 4)):
        ran = run_cli("classify", album, "-f", "jsonl", "--ask", mode)
        assert sum(bool(json.loads(line)["experts"]) for line in ran.out.splitlines()) == asked


def test_summary_counts(run_cli, album):
    err = run_cli("classify", album, "--workers", "1").err.splitlines()
    assert err[0].startswith("5 photos in ")
    assert err[1:] == [
        "labels: beach 1, indoor 1, menu 1, unknown 1",
        "experts were asked about 25.0% of the photos",
        "1 photo failed: not_an_image 1",
        "passed over: not photos 1",
    ]


def test_one_good_photo_is_zero_and_silent(run_cli, photo):
    ran = run_cli("classify", photo())
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(("separator", "options"), [(b"\n", []), (b"\0", ["--null"])])
def test_a_list_on_standard_input(run_cli, album, monkeypatch, separator, options):
    names = [str(album / "beach.jpg").encode(), str(album / "missing.jpg").encode()]
    monkeypatch.setattr(sys, "stdin", Stdin(separator.join(names)))
    ran = run_cli("classify", "-", "-f", "jsonl", "-q", *options)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert [row["status"] for row in rows] == ["ok", "error"]
    assert rows[1]["error"]["code"] == "not_found"


def test_output_file_and_format_by_ending(run_cli, album, tmp_path):
    target = tmp_path / "rows.csv"
    ran = run_cli("classify", album, "--output", target, "--quiet")
    assert (ran.code, ran.out) == (1, "")
    assert len(target.read_text(encoding="utf-8").splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jpg"], "missing.jpg: no such file or folder"),
        (["empty"], "empty: holds no photos"),
        (["album", "--fields", "colour", "-f", "csv"], "no field is called 'colour'; choose from path,"),
        (["album", "--operating-point", "wild"], "no operating point 'wild'; choose one of default, strict"),
        (["album", "--resume"], "need a file; give one with --output"),
        (["album", "--resume", "--restart", "-o", "x.csv"], "give one of them"),
        (["-", "album"], "give it alone"),
        (["album", "--null"], "give - in place of paths"),
        (["album", "-f", "parquet"], "cannot be written to standard output"),
        (["album", "-o", "no/such/folder/x.csv"], "no/such/folder: no such folder"),
        (["album", "-o", "taken.csv"], "taken.csv: was not written by cascade"),
        (["album", "-o", "taken.csv", "--resume"], "no taken.csv.state beside it"),
    ],
)
def test_what_is_refused_and_how(run_cli, album, monkeypatch, arguments, said):
    monkeypatch.chdir(album.parent)
    (album.parent / "empty").mkdir()
    (album.parent / "taken.csv").write_text("precious")
    ran = run_cli("classify", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert (album.parent / "taken.csv").read_text() == "precious"
