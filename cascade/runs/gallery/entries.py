"""Keeps what a gallery shows of each photo in a temporary file, and gives it back sorted."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from cascade.labels import UNKNOWN, LabelTree
from cascade.runs.gallery.plan import Group
from cascade.runs.rows import Row, path_of

__all__ = ["Entries", "Entry"]

#: The order of the groups: the answers that need a look come first, errors last.
_UNKNOWN, _PARENT, _LEAF, _FAILED = range(4)
_ORDER: Final = "rank, place, label"


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo of a gallery.

    Attributes:
        path: of the photo, as the operating system takes it.
        failed: whether the photo could not be read.
        shown: what the page shows, ready to become JSON.
    """

    path: str
    failed: bool
    shown: dict[str, Any]


class Entries:
    """The photos of a gallery, in a temporary SQLite file, so that memory does not grow with their number.

    Within a label, the least certain photos come first. The file vanishes when it is closed.

    Args:
        tree: of the bundle; gives the order of the labels.
    """

    def __init__(self, tree: LabelTree) -> None:
        self._labels = {label: number for number, label in enumerate(tree.labels)}
        self._parents = {label: number for number, label in enumerate(tree.parents)}
        # An empty name is SQLite's temporary database: in memory while it is small, then on disk.
        self._db = sqlite3.connect("")
        self._db.execute(
            "CREATE TABLE entries (number INTEGER PRIMARY KEY, rank INTEGER, place INTEGER, label TEXT,"
            " parent TEXT, confidence REAL, path BLOB, shown TEXT)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def add(self, row: Row) -> None:
        """Keep what is shown of one row.

        Raises:
            OSError: when there is no room for it.
        """
        failed = row["error"] is not None
        label, parent, confidence = (None, None, 0.0) if failed else _answer(row)
        rank, place = (_FAILED, 0) if label is None else self._rank(label, parent)
        shown = _shown_error(row) if failed else _shown_photo(row)
        values = (rank, place, label, parent, confidence, os.fsencode(path_of(row)), json.dumps(shown))
        try:
            self._db.execute(
                "INSERT INTO entries (rank, place, label, parent, confidence, path, shown)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        except sqlite3.Error as error:
            raise OSError(None, f"temporary file: {error}") from error

    def _rank(self, label: str, parent: str | None) -> tuple[int, int]:
        place = self._labels.get(label, self._parents.get(label, -1))
        if label == UNKNOWN:
            return _UNKNOWN, place
        return (_PARENT if label == parent and label not in self._labels else _LEAF), place

    def groups(self) -> list[Group]:
        """Return the groups in the order in which they are shown."""
        found = self._db.execute(
            f"SELECT label, max(parent), count(*) FROM entries GROUP BY {_ORDER} ORDER BY {_ORDER}"
        )
        return [Group(label, parent, count) for label, parent, count in found]

    def __iter__(self) -> Iterator[Entry]:
        """Every photo, group by group, the least certain first.

        Raises:
            OSError: when there is no room to sort them.
        """
        try:
            for rank, path, shown in self._db.execute(
                f"SELECT rank, path, shown FROM entries ORDER BY {_ORDER}, confidence, number"
            ):
                yield Entry(os.fsdecode(path), rank == _FAILED, json.loads(shown))
        except sqlite3.Error as error:
            raise OSError(None, f"temporary file: {error}") from error


def _answer(row: Row) -> tuple[str, str | None, float]:
    return row["label"], row["parent"], row["confidence"]


def _shown_error(row: Row) -> dict[str, Any]:
    return {"path": row["path"], **row["error"]}


def _shown_photo(row: Row) -> dict[str, Any]:
    experts = [expert["name"] for expert in row["experts"]]
    return {
        "path": row["path"],
        "label": row["label"],
        "parent": row["parent"],
        "confidence": row["confidence"],
        "reason": row["reason"],
        "route": " + ".join(experts) or "general",
        "guess": row["top"][0]["label"] if row["top"] else "",
        "top": ", ".join(f"{t['label']} {t['probability']:.2f}" for t in row["top"][:3]),
    }
