"""Tells whether cascade wrote what stands where it is asked to write, so that it replaces nothing else.

Every command that writes asks here before it begins to work. What it writes carries a mark: JSON a key
`generator`, HTML a meta element of that name, rows their `bundle` and `schema`, a folder its bundle.json.
Anything without a mark belongs to the user and is refused, whatever option was given.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cascade import __version__
from cascade.errors import OutputError

__all__ = [
    "GENERATOR",
    "HTML_MARK",
    "PNG_MARK",
    "check_bundle_target",
    "check_file_target",
    "check_pages_target",
    "check_writable",
    "empty_scratch",
    "foreign_files",
    "is_marked",
    "marked",
    "remove_pages",
]

#: What files say about who wrote them.
GENERATOR: Final = f"cascade {__version__}"
#: Stands in the head of every page.
HTML_MARK: Final = '<meta name="generator" content="cascade">'

#: What plots are told to say, as `metadata` of matplotlib.
PNG_MARK: Final = {"Software": "cascade"}

_MANIFEST: Final = "bundle.json"
#: What belongs to a bundle besides its manifest and its graphs.
_BUNDLE_FILES: Final = frozenset(
    (
        _MANIFEST,
        "EMBEDDING.md",
        "POLICY.md",
        "README.md",
        "bundle.schema.json",
        "licences.spdx.json",
        "memory.npz",
        "metrics.json",
    )
)
_GOLDEN: Final = "golden"
_GOLDEN_SUFFIXES: Final = (".png", ".jpg", ".json")
_HEAD_BYTES: Final = 65_536
#: Columns that rows of cascade, photos.csv of a report, and decisions.csv of an audit have together.
_CSV_MARKS: Final = (
    {"path", "schema", "bundle"},
    {"path", "source", "error_code", "answer", "reason"},
    {"action", "proposed", "kind", "path", "suggested", "score"},
)
#: Keys that a finding of an audit has.
_FINDING_KEYS: Final = frozenset(("kind", "path", "other", "label", "suggested", "score"))


def marked(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document for a JSON file, with the mark first."""
    return {"generator": GENERATOR} | document


def is_marked(path: Path) -> bool:
    """Whether a file is empty, or carries a mark of cascade, in any format that cascade writes."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, file.seek(0, io.SEEK_END) - _HEAD_BYTES))
            tail = file.read()
    except OSError:
        return False
    if not head:
        return True
    if head.startswith(b"PAR1"):
        return b"cascade.bundle_sha256" in tail  # metadata stands at the end
    if head.startswith(b"\x89PNG"):
        return b"tEXtSoftware\0cascade" in head
    return _is_marked_text(head.decode("utf-8", "replace"))


def _is_marked_text(head: str) -> bool:
    if head.lstrip().startswith("<!doctype html>"):
        return HTML_MARK in head
    first, _, rest = head.partition("\n")
    if first.startswith("# ") and " sha256:" in first:
        return rest.startswith("label") and "confidence  path" in rest.partition("\n")[0]
    if head.strip() == "[]":  # no finding: nothing is lost
        return True
    if first.strip() == "[":
        first = rest.partition("\n")[0].removesuffix(",")
    if first.startswith("{"):
        if first.strip() == "{" or not first.rstrip().endswith("}"):
            return head[1:].lstrip().startswith('"generator": "cascade')
        try:
            row = json.loads(first)
        except ValueError:
            return False
        known = {"schema", "bundle"} <= row.keys() or row.keys() >= _FINDING_KEYS
        return known or str(row.get("generator", "")).startswith("cascade")
    columns = set(next(csv.reader([first]), []))
    return any(marks <= columns for marks in _CSV_MARKS)


def check_file_target(path: Path, option: str) -> None:
    """Make sure that a file may be written: nothing is there, or what cascade wrote.

    Args:
        path: the file.
        option: that names it, for the message.

    Raises:
        OutputError: when something else is there, or the folder does not exist or may not be written.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give {option} the name of a file")
    if path.exists() and not path.is_file():  # a pipe or a device cannot be overwritten
        return
    if path.exists() and not is_marked(path):
        raise OutputError(
            f"{path}: was not written by cascade and is not overwritten; move it away, "
            f"or give {option} another name"
        )
    check_writable(path.parent, option)


def check_pages_target(folder: Path, option: str = "--gallery") -> None:
    """Make sure that a folder of pages may be written: nothing is there, or only pages of cascade.

    Raises:
        OutputError: when something else is there.
    """
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"{folder}: is no folder of pages; move it away, or give {option} another name")
    for path in sorted(folder.iterdir()):
        ours = path.suffix == ".html" and path.is_file() and not path.is_symlink() and is_marked(path)
        if not ours:
            raise OutputError(
                f"{folder}: holds {path.name}, which cascade did not write; move it away, or give {option} "
                "another name"
            )


def remove_pages(folder: Path, option: str = "--gallery") -> None:
    """Delete a folder of pages if it is there.

    Raises:
        OutputError: when it holds something that cascade did not write; then nothing is deleted.
    """
    check_pages_target(folder, option)
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def check_writable(folder: Path, option: str) -> None:
    """Make sure that files can be made in a folder.

    Raises:
        OutputError: when it does not exist or may not be written.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder; make it first"
        raise OutputError(f"{folder}: {what} (for {option})")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder}: may not be written; change its permissions, or give {option} another place"
        )


def check_bundle_target(folder: Path, *, replace: bool, option: str = "--out") -> None:
    """Make sure that a bundle may be put at a place: nothing is there, or a bundle that may be replaced.

    Raises:
        OutputError: when the folder holds something that would be lost, or a bundle without ``replace``.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file; give {option} the name of a folder")
    if not any(folder.iterdir()):
        return
    if not (folder / _MANIFEST).is_file():
        raise OutputError(
            f"{folder}: is not empty and holds no bundle, so nothing there is touched; give "
            f"{option} another name"
        )
    foreign = foreign_files(folder)
    if foreign:
        listed = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise OutputError(
            f"{folder}: holds {listed}, which belongs to no bundle and would be lost; move it away, or give "
            f"{option} another name"
        )
    if not replace:
        raise OutputError(
            f"{folder}: holds a bundle already; replace it with --replace, or give {option} another name"
        )


def empty_scratch(folder: Path) -> None:
    """Remove what an interrupted command left in the folder where it builds a bundle.

    Raises:
        OutputError: when something in it is not part of a bundle.
    """
    if not os.path.lexists(folder):
        return
    foreign = foreign_files(folder) if folder.is_dir() and not folder.is_symlink() else [folder.name]
    if foreign:
        raise OutputError(
            f"{folder}: is needed to build the bundle in, but holds {foreign[0]}, which is not part of one; "
            "move it away"
        )
    shutil.rmtree(folder)


def foreign_files(folder: Path) -> list[str]:
    """Return what is in the folder of a bundle, or of an unfinished one, and not part of it; sorted names."""
    return sorted(str(path.relative_to(folder)) for path in _files(folder) if not _is_of_bundle(path, folder))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name == _GOLDEN:
            yield from path.iterdir()
        else:
            yield path


def _is_of_bundle(path: Path, folder: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if path.parent != folder:
        return path.suffix in _GOLDEN_SUFFIXES
    return path.name in _BUNDLE_FILES or path.suffix == ".onnx"
