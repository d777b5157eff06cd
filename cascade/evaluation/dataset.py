"""Labelled photos. In: a folder. Out: `Photo`s, each with label, split and source; unusable files named.

Two layouts are understood:

    DATA/{train,calibration,test}/LABEL/FILE    splits as they are
    DATA/LABEL/FILE                             split here, by the hash of the file: 70 / 15 / 15 %

If DATA/manifest.csv has the columns `file` and `source`, accuracy is reported per source.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cascade.errors import DataError
from cascade.imaging.files import PHOTO_SUFFIXES

__all__ = ["SPLITS", "Dataset", "Photo", "scan"]

SPLITS: Final = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True, order=True)
class Photo:
    """One labelled photo.

    Attributes:
        path: the file.
        label: the name of its folder.
        split: one of `SPLITS`.
        source: where it comes from, or "" if unknown.
        sha256: of the file's bytes.
    """

    path: Path
    label: str
    split: str
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Photos and what was left out.

    Attributes:
        photos: sorted by path.
        dropped: (path, reason) of files that were not used: empty, the same content twice, the same
            content under two labels.
    """

    folder: Path
    photos: tuple[Photo, ...]
    dropped: tuple[tuple[Path, str], ...]

    def split(self, name: str) -> tuple[Photo, ...]:
        """Return the photos of one split."""
        return tuple(photo for photo in self.photos if photo.split == name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in alphabetical order."""
        return tuple(sorted({photo.label for photo in self.photos}))

    def fingerprint(self) -> str:
        """Return 16 hex digits that change whenever a photo, label or split changes."""
        text = "\n".join(f"{p.split} {p.label} {p.sha256}" for p in self.photos)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def scan(folder: Path, labels: Iterable[str] | None = None) -> Dataset:
    """Find the labelled photos of a folder.

    A file that occurs twice is used once: in `test` rather than `calibration` rather than `train`, so
    that nothing is learned that is measured later. A file that stands under two labels is left out
    of training.

    Args:
        folder: see the module.
        labels: only these; None takes all.

    Raises:
        DataError: when the folder is missing, holds no labelled photo, or lacks one of ``labels``.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with LABEL/FILE below it")
    splits = [name for name in SPLITS if (folder / name).is_dir()]
    wanted = None if labels is None else set(labels)
    found: list[Photo] = []
    dropped: list[tuple[Path, str]] = []
    sources = _sources(folder)
    roots = [(folder / name, name) for name in splits] or [(folder, "")]
    for root, split in roots:
        for directory in sorted(p for p in root.iterdir() if p.is_dir()):
            label = directory.name
            if wanted is not None and label not in wanted:
                continue
            for path in sorted(directory.rglob("*")):
                if path.suffix.lower() not in PHOTO_SUFFIXES or not path.is_file():
                    continue
                content = path.read_bytes()
                if not content:
                    dropped.append((path, "the file is empty"))
                    continue
                digest = hashlib.sha256(content).hexdigest()
                source = sources.get(path.relative_to(folder).as_posix(), "")
                found.append(Photo(path, label, split or _split_by_hash(digest), source, digest))
    photos = _without_duplicates(found, dropped)
    missing = sorted((wanted or set()) - {photo.label for photo in photos})
    if missing:
        raise DataError(f"{folder}: has no photos for {', '.join(missing)}")
    if not photos:
        raise DataError(f"{folder}: holds no photos; expected LABEL/FILE below it")
    return Dataset(folder, tuple(sorted(photos)), tuple(dropped))


def _split_by_hash(digest: str) -> str:
    """Assign a split that does not change when files are added or renamed."""
    share = int(digest[:8], 16) / 0xFFFFFFFF
    return "train" if share < 0.70 else "calibration" if share < 0.85 else "test"


def _sources(folder: Path) -> dict[str, str]:
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row.get("source") or "" for row in csv.DictReader(file) if "file" in row}


def _without_duplicates(found: list[Photo], dropped: list[tuple[Path, str]]) -> list[Photo]:
    by_content: dict[str, list[Photo]] = defaultdict(list)
    for photo in found:
        by_content[photo.sha256].append(photo)
    kept = []
    for same in by_content.values():
        same.sort(key=lambda photo: (-SPLITS.index(photo.split), photo.path))
        labels = sorted({photo.label for photo in same})
        if len(labels) > 1:
            reason = f"the same file stands under {' and '.join(labels)}"
            kept += [photo for photo in same if photo.split == "test"]
            dropped += [(photo.path, reason) for photo in same if photo.split != "test"]
        else:
            kept.append(same[0])
            dropped += [(photo.path, f"the same file as {same[0].path}") for photo in same[1:]]
    return kept
