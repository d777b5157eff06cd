"""`cascade.runs.writers`: exact text of every format, and the file it goes to."""

from __future__ import annotations

import csv
import errno
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import ErrorInfo, Opinion, Prediction
from cascade.errors import OutputError
from cascade.runs.row_sink import RowSink
from cascade.runs.rows import FIELDS, make_row
from cascade.runs.writers import CsvFormat, JsonlFormat, TableFormat, make_format

GOOD = make_row(
    Prediction(
        path="a.jpg",
        label="kitchen",
        parent="indoor",
        confidence=0.75,
        reason="leaf",
        top=(("kitchen", 0.75), ("bedroom", 0.25)),
        general=Opinion("general", "bedroom", 0.5),
        experts=(Opinion("rooms", "kitchen", 0.9),),
        warnings=("truncated: lacks its lower half",),
        ms={"decode": 1.0, "total": 2.5},
    ),
    "tiny 1 sha256:00",
)
BAD = make_row(
    Prediction(path="b.jpg", status="error", error=ErrorInfo("empty", "no bytes")), "tiny 1 sha256:00"
)


def named(path: str) -> dict:
    return make_row(Prediction(path=path, label="menu", confidence=1.0), "b")


def test_csv_exactly():
    written = CsvFormat(FIELDS)
    assert written.header() == (
        "path,status,error_code,error_message,warnings,label,parent,confidence,reason,top,label_set,general_label,"
        "general_confidence,experts,scope_score,ms_total,schema,bundle\n"
    )
    assert written.format(GOOD) == (
        "a.jpg,ok,,,truncated: lacks its lower half,kitchen,indoor,0.75,leaf,"
        "kitchen 0.750000; bedroom 0.250000,,bedroom,0.5,rooms: kitchen 0.900000,,2.5,1,tiny 1 sha256:00\n"
    )
    assert written.format(BAD) == "b.jpg,error,empty,no bytes,,,,,,,,,,,,,1,tiny 1 sha256:00\n"


@pytest.mark.parametrize(
    "name",
    [
        "=1+1.jpg",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "'quoted",
        "  =1+1",
        "＝1+1",
        "=cmd|' /C calc'!A0",
    ],
)
def test_no_name_becomes_a_formula(name):
    (path,) = next(csv.reader(io.StringIO(CsvFormat(["path"]).format(named(name)), newline="")))
    assert path == "'" + name


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_csv_gives_back_every_name(name):
    (path,) = next(csv.reader(io.StringIO(CsvFormat(["path"]).format(named(name)), newline="")))
    assert path.lstrip(" ")[:1] not in tuple("=+-@\t\r\n＝＋－＠")
    assert path.removeprefix("'") == name


@given(st.text())
def test_json_gives_back_every_name(name):
    line = JsonlFormat(FIELDS).format(named(name))
    assert line.count("\n") == 1
    assert line.endswith("\n")
    line.encode("utf-8")
    if name.isprintable():
        assert json.loads(line)["path"] == name


def test_json_with_fields_keeps_the_exact_name():
    assert json.loads(JsonlFormat(["label", "path"]).format(named("x\udcff"))) == {
        "label": "menu",
        "path": "x\\xff",
        "path_base64": "eP8=",
    }
    assert JsonlFormat(["label"]).format(named("x\udcff")) == '{"label": "menu"}\n'


def test_table_exactly():
    table = TableFormat(8, "tiny 1 sha256:00", explain=False)
    assert table.header() == "# tiny 1 sha256:00\nlabel     confidence  path\n"
    assert table.format(GOOD) == "kitchen        0.750  a.jpg  [truncated: lacks its lower half]\n"
    assert table.format(BAD) == "error                 b.jpg  [empty: no bytes]\n"
    assert table.format(named("a\nb\x1b[2J\udcff")) == "menu           1.000  a\\x0ab\\x1b[2J\\xff\n"


def test_table_explained():
    lines = TableFormat(8, "b", explain=True).format(GOOD).splitlines()
    assert lines[1:] == [
        "    general  bedroom 0.500",
        "    rooms    kitchen 0.900",
        "    answer   leaf: the label's confidence reaches the threshold for labels",
        "    top      kitchen 0.750, bedroom 0.250",
        "    ms       decode 1.0, total 2.5",
    ]


def test_a_table_is_as_wide_as_the_longest_label():
    table = make_format("table", FIELDS, explain=False, labels=["a", "swimming_pool"], bundle="b")
    assert table.header().splitlines()[1] == "label          confidence  path"


def test_a_sink_never_overwrites(tmp_path):
    path = tmp_path / "rows"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists and is not overwritten"):
        RowSink(path)
    assert path.read_text() == "precious"


def test_rows_are_visible_at_once_and_can_be_cut_off(tmp_path):
    path = tmp_path / "rows"
    sink = RowSink(path)
    sink.write("one\n")
    assert path.read_text() == "one\n"
    length = sink.length
    sink.write("two\n")
    sink.truncate(length)
    sink.write("three\n")
    sink.close()
    assert path.read_text() == "one\nthree\n"


def test_the_tail_tells_a_changed_file(tmp_path):
    path = tmp_path / "rows"
    sink = RowSink(path)
    sink.write("x" * 10_000)
    before = sink.tail_hash(10_000)
    sink.write("y" * 10)
    assert sink.tail_hash(10_000) == before
    assert sink.tail_hash(10_010) != before
    sink.write("z")  # after reading, the end is still the end
    sink.close()
    assert path.read_text()[-2:] == "yz"


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    sink = RowSink(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    sink.write("0123456789\n")
    sink.close()
    assert path.read_text() == "0123456789\n"


def test_a_full_disk_is_said_plainly(tmp_path, monkeypatch):
    sink = RowSink(tmp_path / "rows")

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"rows: writing stopped \(No space left on device\); .* --resume"):
        sink.write("row\n")
    sink.close()
