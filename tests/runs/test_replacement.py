"""`cascade.runs.replacement`: a file is replaced at once, and no other file is touched."""

from __future__ import annotations

import os
import stat

import pytest

from cascade.runs.parquet import ParquetWriter
from cascade.runs.replacement import replacing
from cascade.runs.sorting import sort_photos
from cascade.runs.writers import write_json


def test_the_old_content_or_the_new(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
        assert new.parent == tmp_path
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted():
        with replacing(path) as new:
            new.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file"):
        pass
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_the_longest_name_that_a_folder_takes(tmp_path):
    path = tmp_path / ("n" * 255)
    with replacing(path) as new:
        new.write_text("x")
    assert path.read_text() == "x"


def test_every_output_leaves_a_file_with_new_at_its_end_alone(tmp_path, run_cli, photo):
    pytest.importorskip("pyarrow")
    source = photo("album/a.jpg")
    folder = tmp_path / "out"
    (folder / "sorted" / "bedroom").mkdir(parents=True)
    names = ["rows.json.new", "rows.parquet.new", "rows.csv.new", "page.html.new", "sorted/bedroom/a.jpg.new"]
    names += [f"../album/a.jpg.xmp.{os.getpid()}.new"]
    for name in names:
        (folder / name).write_text("mine")
    write_json(["path"], folder / "rows.json", iter([]))
    ParquetWriter(["path"], "b", "0")(folder / "rows.parquet", iter([]))
    output = folder / "rows.csv"
    ran = run_cli("classify", source, "-o", output, "--gallery", folder / "page.html", "--write-xmp")
    assert ran.code == 0, ran.err
    output.unlink()
    ran = run_cli("classify", source, "-o", output, "--resume")  # writes the missing file from its journal
    assert ran.code == 0, ran.err
    assert output.read_text().count("a.jpg") == 1
    sort_photos([{"label": "bedroom", "path": str(source)}], folder / "sorted", "copy")
    assert (folder / "sorted" / "bedroom" / "a.jpg").read_bytes() == source.read_bytes()
    for name in names:
        assert (folder / name).read_text() == "mine"
