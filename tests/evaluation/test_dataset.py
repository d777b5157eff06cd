"""Scanning labelled photos: layouts, duplicates, mislabelled files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import DataError
from cascade.evaluation.dataset import SPLITS, scan


def put(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_splits_and_sources_are_read(tmp_path: Path) -> None:
    for split in ("train", "calibration", "test"):
        put(tmp_path / split / "kitchen" / "a.jpg", split)
    put(tmp_path / "manifest.csv", "file,source\ntest/kitchen/a.jpg,portal\n")
    data = scan(tmp_path)
    assert [p.split for p in data.photos] == ["calibration", "test", "train"]
    assert data.split("test")[0].source == "portal"
    assert data.labels == ("kitchen",)


def test_without_splits_the_content_decides_whatever_the_name(tmp_path: Path) -> None:
    for i in range(200):
        put(tmp_path / "a" / "kitchen" / f"{i}.jpg", f"photo {i}")
        put(tmp_path / "b" / "kitchen" / f"renamed_{i}.jpg", f"photo {i}")
    first, second = ({p.sha256: p.split for p in scan(tmp_path / x).photos} for x in "ab")
    assert first == second
    assert {"train", "calibration", "test"} == set(first.values())
    assert 110 <= list(first.values()).count("train") <= 170


@pytest.mark.parametrize(
    ("count", "fewest"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (10, (5, 2, 1))]
)
def test_a_label_of_few_photos_is_in_every_split(
    tmp_path: Path, count: int, fewest: tuple[int, int, int]
) -> None:
    # By the hashes alone, one folder of ten photos in four has a label that no photo calibrates.
    for seed in range(30):
        for i in range(count):
            put(tmp_path / str(seed) / "kitchen" / f"{i}.jpg", f"photo {seed} {i}")
        found = scan(tmp_path / str(seed)).photos
        counts = [sum(photo.split == split for photo in found) for split in SPLITS]
        assert sum(counts) == count
        assert all(have >= need for have, need in zip(counts, fewest, strict=True)), counts


def test_the_same_file_in_two_splits_is_kept_for_measuring_only(tmp_path: Path) -> None:
    put(tmp_path / "train" / "kitchen" / "a.jpg", "same")
    put(tmp_path / "train" / "kitchen" / "b.jpg", "other")
    put(tmp_path / "test" / "kitchen" / "c.jpg", "same")
    data = scan(tmp_path)
    assert [p.path.name for p in data.photos] == ["c.jpg", "b.jpg"]
    assert [(p.name, "the same file as" in why) for p, why in data.dropped] == [("a.jpg", True)]


def test_the_same_file_under_two_labels_is_not_learned(tmp_path: Path) -> None:
    put(tmp_path / "train" / "kitchen" / "a.jpg", "same")
    put(tmp_path / "train" / "bedroom" / "b.jpg", "same")
    put(tmp_path / "train" / "bedroom" / "c.jpg", "fine")
    data = scan(tmp_path)
    assert [p.path.name for p in data.photos] == ["c.jpg"]
    assert all("under bedroom and kitchen" in why for _, why in data.dropped)


def test_empty_files_are_named(tmp_path: Path) -> None:
    put(tmp_path / "kitchen" / "a.jpg", "")
    put(tmp_path / "kitchen" / "b.jpg", "x")
    assert scan(tmp_path).dropped == ((tmp_path / "kitchen" / "a.jpg", "the file is empty"),)


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no photos"):
        scan(tmp_path)
    put(tmp_path / "kitchen" / "a.jpg", "x")
    with pytest.raises(DataError, match="has no photos for bedroom"):
        scan(tmp_path, ["kitchen", "bedroom"])


def test_the_fingerprint_sees_a_changed_label(tmp_path: Path) -> None:
    path = put(tmp_path / "kitchen" / "a.jpg", "x")
    before = scan(tmp_path).fingerprint()
    (tmp_path / "bedroom").mkdir()
    path.rename(tmp_path / "bedroom" / "a.jpg")
    assert scan(tmp_path).fingerprint() != before


def test_several_folders_make_one_dataset(tmp_path: Path) -> None:
    for name, label, colour in (("a", "kitchen", 10), ("b", "bedroom", 20), ("b", "kitchen", 30)):
        put(tmp_path / name / "train" / label / f"{colour}.png", str(colour))
    (tmp_path / "b" / "manifest.csv").write_text("file,source\ntrain/kitchen/30.png,web:one\n")
    (tmp_path / "b" / "manifest_more.csv").write_text("file,source\ntrain/bedroom/20.png,portal\n")
    data = scan([tmp_path / "a", tmp_path / "b"], ["kitchen", "bedroom"])
    assert data.folder == tmp_path
    assert [(p.label, p.source, p.collection) for p in data.photos] == [
        ("kitchen", "", ""),
        ("bedroom", "portal", "portal"),
        ("kitchen", "web:one", "web"),
    ]
    with pytest.raises(DataError, match="b: has no photos for garden"):
        scan([tmp_path / "a", tmp_path / "b"], ["garden"])
