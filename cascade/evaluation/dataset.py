"""Finds labelled photos and says which split, label and source each belongs to.

Three forms are understood:

    DATA/{train,calibration,test}/LABEL/FILE    splits as they are
    DATA/LABEL/FILE                             split here, by the hash of the file: 70 / 15 / 15 %; where a
                                                split would have too few of a label, photos are moved to it

    CORRECTIONS.csv                             what people said in `cascade review`; split in the same way

Several of them make one dataset. A file DATA/manifest*.csv with the columns `file` and `source` says where
photos come from; accuracy is then reported per source.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cascade.errors import DataError
from cascade.evaluation.corrections_file import CORRECTIONS_SUFFIX, read_corrections
from cascade.imaging.recognition import PHOTO_SUFFIXES

__all__ = ["SPLITS", "Dataset", "Photo", "collection_of", "labelled_files", "read_manifests", "scan"]

SPLITS: Final = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True, order=True)
class Photo:
    """One labelled photo.

    Attributes:
        path: the file.
        label: the name of its folder.
        split: one of `SPLITS`.
        source: where it comes from, or "" if unknown. Sources of one kind may share what stands before a
            colon: "web:site-a", "web:site-b".
        sha256: of the file's bytes.
    """

    path: Path
    label: str
    split: str
    source: str
    sha256: str

    @property
    def collection(self) -> str:
        """The source without what follows a colon; small sources of one kind count as one collection."""
        return collection_of(self.source)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Photos and what was left out.

    Attributes:
        folder: that all of them lie below.
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


def collection_of(source: str) -> str:
    """Return what stands before a colon: small sources of one kind, "web:site", count as one collection."""
    return source.partition(":")[0]


def scan(
    folders: Path | Sequence[Path],
    labels: Iterable[str] | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Dataset:
    """Find the labelled photos of a folder, or of several.

    A file that occurs twice is used once: in `test` rather than `calibration` rather than `train`, so
    that nothing is learned that is measured later. A file that stands under two labels is left out
    of training.

    Args:
        folders: folders and files of corrections, see the module.
        labels: only these; None takes all.
        label_map: name of a folder -> label that it stands for; other folders are named like their labels.
            In a file of corrections it is the name of a label.

    Raises:
        DataError: when a folder is missing, holds no labelled photo, or none of them has one of ``labels``;
            or when ``label_map`` names a folder that is not there.
    """
    roots = [folders] if isinstance(folders, Path) else list(folders)
    named = ", ".join(str(root) for root in roots)
    if any(_is_corrections(root) for root in roots):  # they name photos anywhere
        roots = [root.absolute() for root in roots]
    wanted = None if labels is None else set(labels)
    found: list[Photo] = []
    dropped: list[tuple[Path, str]] = []
    for root in roots:
        before = len(found)
        scan_root = _scan_corrections if _is_corrections(root) else _scan_folder
        scan_root(root, wanted, label_map or {}, found, dropped)
        if len(found) == before and wanted is None:
            what = (
                "no photo with a label"
                if _is_corrections(root)
                else "no photos; expected LABEL/FILE below it"
            )
            raise DataError(f"{root}: holds {what}")
    _check_map(label_map or {}, roots)
    photos = _without_duplicates(found, dropped)
    if not any((root / name).is_dir() for root in roots for name in SPLITS):
        photos = _with_every_label_in_every_split(photos)
    missing = sorted((wanted or set()) - {photo.label for photo in photos})
    if missing:
        raise DataError(f"{named}: has no photos for {', '.join(missing)}")
    return Dataset(_common_folder(roots, photos, dropped), tuple(sorted(photos)), tuple(dropped))


def _is_corrections(root: Path) -> bool:
    return root.suffix.lower() == CORRECTIONS_SUFFIX and not root.is_dir()


def _common_folder(
    roots: Sequence[Path], photos: Sequence[Photo], dropped: Sequence[tuple[Path, str]]
) -> Path:
    folders = [root for root in roots if not _is_corrections(root)]
    if len(roots) == len(folders) == 1:
        return folders[0]
    if len(folders) < len(roots):
        folders += [path.parent for path in (*(photo.path for photo in photos), *(p for p, _ in dropped))]
    return Path(os.path.commonpath(folders))


def _check_map(label_map: Mapping[str, str], roots: Sequence[Path]) -> None:
    folders = [root for root in roots if root.is_dir()]
    there = {
        path.name for root in folders for name in ("", *SPLITS) for path in root.joinpath(name).glob("*")
    }
    there |= {c.label for root in roots if _is_corrections(root) for c in read_corrections(root)}
    absent = sorted(set(label_map) - there)
    if absent:
        raise DataError(
            f"{', '.join(str(root) for root in roots)}: the label map names the folder {absent[0]!r}, "
            "which is not there"
        )


def _scan_folder(
    folder: Path,
    wanted: set[str] | None,
    label_map: Mapping[str, str],
    found: list[Photo],
    dropped: list[tuple[Path, str]],
) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with LABEL/FILE below it")
    sources = {name: row.get("source") or "" for name, row in read_manifests(folder).items()}
    for path, directory, split in labelled_files(folder):
        label = label_map.get(directory, directory)
        if path.suffix.lower() not in PHOTO_SUFFIXES or (wanted is not None and label not in wanted):
            continue
        content = path.read_bytes()
        if not content:
            dropped.append((path, "the file is empty"))
            continue
        digest = hashlib.sha256(content).hexdigest()
        source = sources.get(path.relative_to(folder).as_posix(), "")
        found.append(Photo(path, label, split or _split_by_hash(digest), source, digest))


def labelled_files(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, name of the label's folder, split) of every file of a layout; "" where splits are none."""
    splits = [name for name in SPLITS if (folder / name).is_dir()]
    for root, split in [(folder / name, name) for name in splits] or [(folder, "")]:
        for directory in sorted(p for p in root.iterdir() if p.is_dir()):
            yield from (
                (path, directory.name, split) for path in sorted(directory.rglob("*")) if path.is_file()
            )


def _scan_corrections(
    file: Path,
    wanted: set[str] | None,
    label_map: Mapping[str, str],
    found: list[Photo],
    dropped: list[tuple[Path, str]],
) -> None:
    for each in read_corrections(file):
        label = label_map.get(each.label, each.label)
        content = each.path.read_bytes() if each.path.is_file() else b""
        why = each.left_out if each.label not in label_map else ""
        if why or not content:
            dropped.append((each.path, why or "is not where the corrections say, or is empty"))
        elif wanted is None or label in wanted:
            digest = hashlib.sha256(content).hexdigest()
            found.append(Photo(each.path, label, _split_by_hash(digest), "", digest))


def _split_by_hash(digest: str) -> str:
    """Assign a split that does not change when files are added or renamed."""
    share = int(digest[:8], 16) / 0xFFFFFFFF
    return "train" if share < 0.70 else "calibration" if share < 0.85 else "test"


def _with_every_label_in_every_split(photos: list[Photo]) -> list[Photo]:
    """Move photos of labels that chance left without any in a split; it concerns labels of few photos.

    At least half of a label's photos train; of three there is one in every split, of six there are two in
    `calibration`. The photos with the smallest hashes move, so that the same folder is always split alike.
    """
    by_label: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda photo: photo.sha256):
        by_label[photo.label].append(photo)
    moved: list[Photo] = []
    for same in by_label.values():
        n = len(same)
        fewest = dict(zip(SPLITS, (max(n // 2, 1), (n >= 2) + (n >= 6), int(n >= 3)), strict=True))
        while lacking := [s for s in SPLITS if sum(p.split == s for p in same) < fewest[s]]:
            spare = {s: sum(p.split == s for p in same) - fewest[s] for s in SPLITS}
            giver = max(SPLITS, key=lambda split, spare=spare: spare[split])  # type: ignore[misc]
            place = next(i for i, photo in enumerate(same) if photo.split == giver)
            same[place] = replace(same[place], split=lacking[0])
        moved += same
    return moved


def read_manifests(folder: Path) -> dict[str, dict[str, str]]:
    """Return file, relative to the folder and with slashes -> row, of DATA/manifest*.csv; later ones win."""
    found: dict[str, dict[str, str]] = {}
    for manifest in sorted(folder.glob("manifest*.csv")):
        with manifest.open(encoding="utf-8", newline="") as file:
            found |= {row["file"]: row for row in csv.DictReader(file) if "file" in row}
    return found


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
