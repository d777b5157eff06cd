"""Lists the labelled files of a dataset as they stand, with those that training would pass over.

`cascade.evaluation.dataset.scan` gives what can be trained on; an audit needs every file: empty ones, files
that occur twice, and photos whose names do not end like photos. Labels, splits and sources come from the
columns `label`, `split` and `source` of DATA/manifest*.csv where they name a file, and otherwise from the
folders, by the same rules as for training.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import DataError
from cascade.evaluation.dataset import collection_of, labelled_files, read_manifests
from cascade.imaging.files import FindOptions, find_photos, readable

__all__ = ["Listed", "list_photos"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One labelled file.

    Attributes:
        path: as the operating system takes it, below the folder that was given.
        label: what it is said to show.
        split: "train", "calibration", "test"; "" if the folder has no splits.
        source: where it comes from; "" if unknown.
    """

    path: str
    label: str
    split: str
    source: str

    @property
    def shown(self) -> str:
        """The path as text."""
        return readable(self.path)

    @property
    def collection(self) -> str:
        """The source without what follows a colon, see `cascade.evaluation.dataset.Photo`."""
        return collection_of(self.source)


def list_photos(folders: Sequence[Path]) -> list[Listed]:
    """Return the labelled files of some folders, sorted by path; a file that is reached twice is listed once.

    Raises:
        DataError: when a folder is missing or holds no labelled photo.
    """
    found: dict[str, Listed] = {}
    for folder in folders:
        # Not resolved: two links to one file are two entries of the dataset.
        listed = {os.path.abspath(photo.path): photo for photo in _list_folder(folder)}  # noqa: PTH100
        if not listed:
            raise DataError(f"{folder}: holds no photos; expected LABEL/FILE below it, or a manifest.csv")
        found |= {key: photo for key, photo in listed.items() if key not in found}
    return sorted(found.values(), key=lambda photo: photo.path)


def _list_folder(folder: Path) -> Iterator[Listed]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with LABEL/FILE below it")
    rows = read_manifests(folder)
    places = {str(path): (label, split) for path, label, split in labelled_files(folder)}
    for photo in find_photos([str(folder)], FindOptions(follow_links=True)):
        row = rows.pop(os.path.relpath(photo.path, folder).replace(os.sep, "/"), {})
        label, split = places.get(photo.path, ("", ""))
        label, split = row.get("label") or label, row.get("split") or split
        if label:
            yield Listed(photo.path, label, split, row.get("source") or "")
    for name, row in rows.items():  # named in a manifest, and not there: examining it says so
        if row.get("label") and not (folder / name).exists():
            yield Listed(str(folder / name), row["label"], row.get("split") or "", row.get("source") or "")
