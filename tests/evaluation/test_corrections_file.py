"""Corrections as `cascade review` exports them are labelled photos for every command that takes some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.errors import DataError
from cascade.evaluation.corrections_file import read_corrections
from cascade.evaluation.dataset import scan

HEADER = "path,label,previous,confidence,kind,reviewer,time,level\n"


def write(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_labels_are_read_and_what_names_no_label_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "=e"):
        (tmp_path / f"{name}.jpg").write_text(name)
    file = write(
        tmp_path / "corrections.csv",
        "a.jpg,kitchen,bar,0.5,label,,,label",
        "b.jpg,indoor,bar,0.5,label,,,broader",
        "c.jpg,unknown,bar,0.5,unknown,,,unknown",
        "gone.jpg,bar,bar,0.5,accept,,,label",
        "'=e.jpg,bar,bar,0.5,accept,,,label",
    )
    data = scan(file)
    assert {(p.path.name, p.label) for p in data.photos} == {("a.jpg", "kitchen"), ("=e.jpg", "bar")}
    why = {path.name: reason for path, reason in data.dropped}
    assert why["b.jpg"] == "only the broader label indoor is known"
    assert "no label fits" in why["c.jpg"]
    assert "is not where the corrections say" in why["gone.jpg"]
    assert all(p.path.is_relative_to(data.folder) for p in data.photos)


def test_paths_start_where_the_command_does_or_where_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("a")
    (tmp_path / "downloads").mkdir()
    file = write(tmp_path / "downloads" / "corrections.csv", "photos/a.jpg,bar,,,label,,,label")
    with pytest.raises(
        DataError, match=r"none of its 1 photos is found, e\.g\. photos/a\.jpg; start the comm"
    ):
        read_corrections(file)
    monkeypatch.chdir(tmp_path)
    assert read_corrections(file)[0].path == tmp_path / "photos" / "a.jpg"


def test_what_is_no_file_of_corrections_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,answer\n")
    with pytest.raises(DataError, match="has no column 'label'"):
        scan(tmp_path / "a.csv")
    with pytest.raises(DataError, match="no such file"):
        scan(tmp_path / "b.csv")


def test_a_label_map_gives_what_no_label_fits_a_label(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("a")
    file = write(tmp_path / "c.csv", "a.jpg,indoor,,,label,,,broader", "b.jpg,indoor,,,label,,,broader")
    data = scan(file, label_map={"indoor": "kitchen"})
    assert [(p.path.name, p.label) for p in data.photos] == [("a.jpg", "kitchen")]
    assert len(data.dropped) == 1
    with pytest.raises(DataError, match="names the folder 'attic'"):
        scan(file, label_map={"attic": "kitchen", "indoor": "kitchen"})


def test_folders_and_corrections_make_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data/bar/1.jpg", "run/2.jpg"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text(name)
    file = write(Path("run/c.csv"), "2.jpg,bar,,,label,,,label")
    data = scan([Path("data"), file])
    assert len(data.photos) == 2
    assert data.folder == tmp_path


def test_evaluate_takes_corrections(run_cli: Callable, photo: Callable, tmp_path: Path) -> None:
    rows = [f"{photo(f'{label}.png', label)},{label},,,accept,,,label" for label in ("bedroom", "forest")]
    ran = run_cli("evaluate", write(tmp_path / "c.csv", *rows), "--shifted", "0")
    assert ran.code == 0, ran.err
    assert "2 photos" in ran.out + ran.err
