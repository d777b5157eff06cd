"""Keeps what people said about the photos of a run: an append-only log in SQLite beside the run.

Nothing in the log is ever changed or deleted (triggers see to it); an undo is one entry more. Every entry is
on the disk before it counts (WAL, synchronous=FULL), so a crash loses nothing. Several people, also in
several processes, can write at the same time: everybody says which entry they saw last, and is told when
somebody else was faster.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cascade.errors import OutputError

__all__ = ["KINDS", "Change", "ConflictError", "CorrectionLog", "Entry"]

#: What an entry can be. `bulk` accepts without looking, so it is no evidence of accuracy.
KINDS: Final = ("label", "accept", "unknown", "bulk", "undo")
_WAIT_SECONDS: Final = 20
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch INTEGER NOT NULL,      -- entries that are undone together
    time TEXT NOT NULL,          -- UTC, ISO 8601
    reviewer TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('label', 'accept', 'unknown', 'bulk', 'undo')),
    path TEXT NOT NULL,          -- as in the run; '' for undo
    label TEXT,                  -- what the photo shows; NULL for undo
    previous TEXT,               -- the answer of the run
    undoes INTEGER               -- a batch
);
CREATE INDEX IF NOT EXISTS entry_batch ON entry (batch);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log; see the comments of the table."""

    id: int
    batch: int
    time: str
    reviewer: str
    kind: str
    path: str
    label: str | None
    previous: str | None
    undoes: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody says about a photo.

    Attributes:
        path: of the photo, as in the run.
        kind: one of `KINDS`, not ``"undo"``.
        label: what the photo shows; ``"unknown"`` if no label fits.
        previous: the answer of the run.
        seen: id of the last entry about this photo that they saw; 0 if there was none.
    """

    path: str
    kind: str
    label: str
    previous: str | None
    seen: int


class ConflictError(Exception):
    """Somebody else said something about these photos in the meantime.

    Attributes:
        entries: what counts now.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        super().__init__("; ".join(f"{entry.reviewer} said {entry.label!r}" for entry in entries))


class CorrectionLog:
    """The log of one run. Thread-safe.

    Args:
        path: of the SQLite file; made if it is not there.

    Raises:
        OutputError: when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._last = 0
        self._live: dict[str, list[Entry]] = {}
        self._batches: dict[int, list[Entry]] = {}
        try:
            self._database = sqlite3.connect(
                path, timeout=_WAIT_SECONDS, check_same_thread=False, isolation_level=None
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OutputError(f"{path}: the corrections cannot be opened ({error})") from error
        self.sync()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def sync(self) -> set[str]:
        """Read what others have written since, and return the paths that it is about."""
        with self._lock:
            rows = self._database.execute("SELECT * FROM entry WHERE id > ? ORDER BY id", (self._last,))
            touched: set[str] = set()
            for row in rows:
                entry = Entry(*row)
                self._last = entry.id
                touched |= self._apply(entry)
            return touched

    def _apply(self, entry: Entry) -> set[str]:
        if entry.kind != "undo":
            self._live.setdefault(entry.path, []).append(entry)
            self._batches.setdefault(entry.batch, []).append(entry)
            return {entry.path}
        undone = self._batches.pop(entry.undoes or 0, [])
        for one in undone:
            self._live[one.path].remove(one)
            if not self._live[one.path]:
                del self._live[one.path]
        return {one.path for one in undone}

    @property
    def last(self) -> int:
        """Id of the newest entry that was read."""
        return self._last

    def state(self, path: str) -> Entry | None:
        """Return what counts for a photo now; None if nobody has said anything."""
        live = self._live.get(path)
        return live[-1] if live else None

    def states(self) -> dict[str, Entry]:
        """Return what counts now for every photo that somebody has said something about."""
        with self._lock:
            return {path: live[-1] for path, live in self._live.items()}

    def history(self, count: int) -> list[list[Entry]]:
        """Return the newest batches that are not undone, newest first."""
        with self._lock:
            return [self._batches[batch] for batch in sorted(self._batches, reverse=True)[:count]]

    def paths_since(self, last: int) -> set[str]:
        """Return the paths that entries after an id are about."""
        with self._lock:
            rows = self._database.execute(
                "SELECT path FROM entry WHERE id > ? AND kind != 'undo' UNION SELECT path FROM entry"
                " WHERE batch IN (SELECT undoes FROM entry WHERE id > ? AND kind = 'undo')",
                (last, last),
            )
            return {path for (path,) in rows}

    def append(self, changes: Sequence[Change], reviewer: str) -> set[str]:
        """Write changes, all or none, and return the paths whose state may be another one now.

        Raises:
            ConflictError: when somebody else said something about one of the photos that was not seen.
        """
        with self._writing():
            touched = self.sync()
            newer = [
                state
                for change in changes
                if (state := self.state(change.path)) is not None and state.id != change.seen
            ]
            if newer:
                raise ConflictError(newer)
            now, batch = _now(), self._last + 1
            self._database.executemany(
                "INSERT INTO entry (batch, time, reviewer, kind, path, label, previous)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(batch, now, reviewer, c.kind, c.path, c.label, c.previous) for c in changes],
            )
        return touched | self.sync()

    def undo(self, reviewer: str, batch: int | None = None) -> set[str]:
        """Take back a batch, or the newest one of a reviewer, and return the paths that it was about.

        The set is empty when there is nothing to take back.
        """
        with self._writing():
            self.sync()
            if batch is None:
                mine = (number for number, made in self._batches.items() if made[0].reviewer == reviewer)
                batch = max(mine, default=None)
            if batch is None or batch not in self._batches:
                return set()
            self._database.execute(
                "INSERT INTO entry (batch, time, reviewer, kind, path, undoes)"
                " VALUES (?, ?, ?, 'undo', '', ?)",
                (self._last + 1, _now(), reviewer, batch),
            )
        return self.sync()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the log for this thread and this process, and let go of it again whatever happens."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise OutputError(f"{self.path}: nothing was written ({error})") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
