"""Hashes of every file of a bundle, so that a copy can be shown to be whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cascade.bundle.manifest import MANIFEST, Bundle
from cascade.bundle.schema import read_json
from cascade.bundle.signing import SIGNATURE

__all__ = ["changed_files", "file_hashes"]

#: The manifest holds the hashes, and the signature is about the manifest.
_NOT_HASHED = frozenset({MANIFEST, SIGNATURE})


def file_hashes(folder: Path) -> dict[str, str]:
    """Return path below the folder -> SHA-256 in lower-case hex, of every file but the manifest."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(_names(folder))}


def changed_files(bundle: Bundle) -> list[str]:
    """Return what differs from the list of files in bundle.json, in words; empty without such a list.

    Bundles that were packed before the list existed have none; hashes of their graphs are checked anyway.
    """
    listed = read_json(bundle.folder / MANIFEST).get("files")
    if listed is None:
        return []
    found = file_hashes(bundle.folder)
    problems = [f"{name}: is missing" for name in listed if name not in found]
    problems += [f"{name}: was changed" for name, known in listed.items() if found.get(name, known) != known]
    return problems + [f"{name}: does not belong to the bundle" for name in found if name not in listed]


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _NOT_HASHED:
            yield name
