"""Folders that are not named like their labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import DataError, UsageError
from cascade.evaluation.dataset import scan
from cascade.evaluation.label_map import parse_label_map


def test_pairs_come_from_the_command_line_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text("# of the agency\n\nbath room = bathroom\nhall=corridor\n")
    found = parse_label_map(["livingroom=living_room", str(file)])
    assert found == {"livingroom": "living_room", "bath room": "bathroom", "hall": "corridor"}
    assert parse_label_map([]) == {}


def test_what_is_no_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'livingroom=' is not FOLDER=LABEL"):
        parse_label_map(["livingroom="])
    with pytest.raises(UsageError, match="nowhere: is neither FOLDER=LABEL nor a text file"):
        parse_label_map(["nowhere"])
    with pytest.raises(UsageError, match="'hall' is mapped to 'corridor' already"):
        parse_label_map(["hall=corridor", "hall=lobby"])
    (tmp_path / "map.txt").write_text("hall=lobby\nliving room\n")
    with pytest.raises(UsageError, match=r"map\.txt, line 2"):
        parse_label_map([str(tmp_path / "map.txt")])


def test_a_mapped_folder_has_the_label_and_joins_one_that_has_it(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in ("livingroom", "living_room"):
            home = tmp_path / split / folder
            home.mkdir(parents=True)
            (home / "a.jpg").write_text(f"{split} {folder}")
    data = scan(tmp_path, label_map={"livingroom": "living_room"})
    assert data.labels == ("living_room",)
    assert len(data.split("test")) == 2
    assert len(scan(tmp_path, ["living_room"], {"livingroom": "living_room"}).photos) == 4
    with pytest.raises(DataError, match="names the folder 'lounge', which is not there"):
        scan(tmp_path, label_map={"lounge": "living_room"})
