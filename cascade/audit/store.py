"""Keeps what was found in every file in one SQLite file, so that a second audit reads only what changed.

A file is known by its path, size and time of change; what was found with another general model, or by an
older way of looking, is not used. What is written is safe after every batch, so that a stopped audit goes on.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from cascade.arrays import Float32s, Pixels
from cascade.audit.examine import Examined, Facts
from cascade.errors import OutputError
from cascade.imaging.files import look_at

__all__ = ["Store"]

#: Goes up whenever `cascade.audit.examine` finds something else in the same file.
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS file (
    path BLOB PRIMARY KEY,      -- absolute
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    model TEXT NOT NULL,        -- see Store
    facts TEXT NOT NULL,        -- JSON
    embedding BLOB,             -- float16
    width INTEGER,              -- of the small copy
    small BLOB                  -- uint8, row by row
)
"""


class Store:
    """What is known of files; a context manager. Thread-safe.

    Args:
        path: of the SQLite file; made if it is not there.
        model: names the graph that gives the embeddings, e.g. by its SHA-256.

    Raises:
        OutputError: when it cannot be opened.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._lock = threading.Lock()
        self._model = f"{model}/{_VERSION}"
        try:
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise OutputError(
                f"{path}: what earlier audits found cannot be opened ({error}); delete it"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def unknown(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the files that must be examined: new ones, and those that changed."""
        for path in paths:
            found = self._one("size, mtime_ns, model", path)
            now = look_at(path)
            if found != (now.size, now.mtime_ns, self._model):
                yield path

    def add(self, files: Iterable[tuple[str, Examined]]) -> None:
        """Keep what was found in some files.

        Raises:
            OutputError: when there is no room for it.
        """
        try:
            with self._lock, self._db:
                self._db.executemany(
                    "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (self._row(path, examined) for path, examined in files),
                )
        except sqlite3.Error as error:
            raise OutputError(
                f"what was found cannot be kept ({error}); make room and start again"
            ) from error

    def facts(self, path: str) -> Facts:
        """Return what is known of a file that was examined."""
        row = self._one("facts", path)
        return Facts(**json.loads(row[0])) if row else Facts(code="not_found", message="no such file")

    def embeddings(self, paths: Sequence[str]) -> Float32s:
        """Return (N, D), each of length 1, of files that could be decoded."""
        first = self._embedding(paths[0])
        found = np.empty((len(paths), len(first)), dtype=np.float32)
        for place, path in enumerate(paths):
            found[place] = self._embedding(path)
        return found

    def small(self, path: str) -> Pixels:
        """Return the small grey copy of a file that could be decoded, (h, w)."""
        row = self._one("width, small", path)
        assert row is not None
        return np.frombuffer(row[1], dtype=np.uint8).reshape(-1, row[0])

    def _embedding(self, path: str) -> Float32s:
        row = self._one("embedding", path)
        assert row is not None
        vector = np.frombuffer(row[0], dtype=np.float16).astype(np.float32)
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def _one(self, columns: str, path: str) -> tuple[Any, ...] | None:
        with self._lock:
            cursor = self._db.execute(f"SELECT {columns} FROM file WHERE path = ?", (_key(path),))
            found: tuple[Any, ...] | None = cursor.fetchone()
            return found

    def _row(self, path: str, examined: Examined) -> tuple[Any, ...]:
        now, small, embedding = look_at(path), examined.small, examined.embedding
        return (
            _key(path),
            now.size,
            now.mtime_ns,
            self._model,
            json.dumps(asdict(examined.facts)),
            None if embedding is None else embedding.astype(np.float16).tobytes(),
            None if small is None else small.shape[1],
            None if small is None else small.tobytes(),
        )


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100 - names that are not UTF-8
