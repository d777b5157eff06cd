"""Remembers which photos have a row, so that a run can go on after any accident.

A journal is an SQLite file. Beside an output it is called OUTPUT.state and makes three promises:

- A row is committed together with the length that the output had after it, and only after the output was
  handed to the disk (fsync). After kill -9 or a power cut the output is cut back to the last commit, and
  photos after it are classified again. No row is lost, doubled or half-written.
- Commits come at least once a second, so no more than a second of work is done twice.
- Only one process can hold a journal.

The first promise holds for a power cut only if the disk really writes on fsync (SQLite, `synchronous=FULL`).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from cascade.errors import OutputError, UsageError
from cascade.runs.reading import Item
from cascade.runs.rows import Row

__all__ = ["Journal", "LockedError"]

_VERSION: Final = 1
#: Says to every reader of SQLite files that this one is a journal of cascade ("casc").
_APPLICATION: Final = 0x63617363
_HEADER: Final = b"SQLite format 3\0"
#: A fact that every journal has, and that one of another program has not.
_VERSION_FACT: Final = "fact:journal version"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 BLOB,
    failed INTEGER NOT NULL,
    row TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS content ON rows (sha256) WHERE sha256 IS NOT NULL;
"""


class LockedError(OutputError):
    """Another process holds the journal."""


class Journal:
    """What is done, and the rows.

    Args:
        path: the file; None keeps the journal in a temporary file that vanishes with the process.
        read_only: look, and change nothing; the file must exist.
        replace_damaged: begin anew in place of a journal of cascade that cannot be read any more.

    Raises:
        LockedError: when another process holds it.
        OutputError: when the file cannot be used, or is something else.
    """

    def __init__(self, path: Path | None, *, replace_damaged: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            if not (replace_damaged and path is not None and _is_damaged(error) and _has_our_header(path)):
                raise self._failed(error) from error
            path.unlink()
            self._open()

    def _open(self) -> None:
        path = self.path
        if self._read_only:
            assert path is not None
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)
            self._refuse_another()
            return
        # An empty name is SQLite's temporary database: in memory while small, then on disk.
        self._db = sqlite3.connect("" if path is None else path, timeout=0.5, isolation_level=None)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN EXCLUSIVE")
        self._refuse_another()
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def _refuse_another(self) -> None:
        """Leave a database of another program alone."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        if not tables or application == _APPLICATION:
            return
        if not ("meta" in tables and self.get(_VERSION_FACT)):
            self.close()
            raise OutputError(
                f"{self.path}: is a database of another program and is left alone; give another "
                "name to --output"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _failed(self, error: sqlite3.Error) -> OutputError:
        text = str(error)
        if "locked" in text:
            return LockedError(f"{self.path}: another cascade is writing this output; wait for it to end")
        if _is_damaged(error):
            ours = self.path is not None and _has_our_header(self.path)
            what = "is damaged; begin again with --restart" if ours else "is no journal; move it away"
            return OutputError(f"{self.path}: {what}")
        if "full" in text or "disk I/O" in text:
            return OutputError(
                f"{self.path or 'temporary journal'}: writing stopped ({text}); rows written so far are "
                "safe: make room, then give the same command with --resume"
            )
        return OutputError(f"{self.path or 'temporary journal'}: cannot be used ({text})")

    def get(self, key: str) -> str | None:
        """Return a fact about the run."""
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def set(self, key: str, value: str) -> None:
        """Keep a fact about the run, with the next `commit`."""
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def check(self, fingerprint: dict[str, str]) -> None:
        """Compare with what the run was started with, or keep it if this is the start.

        Raises:
            UsageError: when something differs; the message names it.
        """
        self.compare(fingerprint)
        for name, now in {"journal version": str(_VERSION), **fingerprint}.items():
            self.set(f"fact:{name}", now)

    def compare(self, fingerprint: dict[str, str]) -> None:
        """See `check`; keeps nothing."""
        for name, now in {"journal version": str(_VERSION), **fingerprint}.items():
            before = self.get(f"fact:{name}")
            if before is not None and before != now:
                raise UsageError(
                    f"{self.path}: the run was started with {name} = {before}, now it is {now}; rows of two "
                    "kinds must not mix: give the same command, or begin again with --restart"
                )

    def is_done(self, item: Item, *, by_content: bool, retry_failed: bool = False) -> bool:
        """Whether a photo has a row and has not changed since (by content, or by size and time).

        Args:
            item: the photo.
            by_content: compare content.
            retry_failed: a row with an error does not count.
        """
        found = self._db.execute(
            "SELECT size, mtime_ns, sha256, failed FROM rows WHERE path = ?", (os.fsencode(item.found.path),)
        ).fetchone()
        if found is None or (retry_failed and found[3]):
            return False
        if by_content and item.sha256 is not None:
            return bool(found[2] == bytes.fromhex(item.sha256))
        return (found[0], found[1]) == (item.found.size, item.found.mtime_ns)

    def known(self, sha256: str) -> Row | None:
        """Return the row of a photo with this content, one with an answer if there is one."""
        found = self._db.execute(
            "SELECT row FROM rows WHERE sha256 = ? ORDER BY failed LIMIT 1", (bytes.fromhex(sha256),)
        ).fetchone()
        return None if found is None else json.loads(found[0])

    def row_of(self, path: str) -> Row | None:
        """Return the row of a path."""
        found = self._db.execute("SELECT row FROM rows WHERE path = ?", (os.fsencode(path),)).fetchone()
        return None if found is None else json.loads(found[0])

    def add(self, item: Item, row: Row) -> bool:
        """Keep a row; returns whether it replaces an older one, of a photo that has changed since."""
        path = os.fsencode(item.found.path)
        replaced = self._execute("DELETE FROM rows WHERE path = ?", (path,)) > 0
        digest = None if item.sha256 is None else bytes.fromhex(item.sha256)
        self._execute(
            "INSERT INTO rows (path, size, mtime_ns, sha256, failed, row) VALUES (?, ?, ?, ?, ?, ?)",
            (path, item.found.size, item.found.mtime_ns, digest, row["error"] is not None, json.dumps(row)),
        )
        return replaced

    def commit(self) -> None:
        """Make everything since the last commit permanent."""
        try:
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _execute(self, statement: str, values: tuple[object, ...]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def rows(self) -> Iterator[Row]:
        """Every row, in the order in which they were written."""
        for (text,) in self._db.execute("SELECT row FROM rows ORDER BY number"):
            yield json.loads(text)

    def clear(self) -> None:
        """Forget every row and every fact, permanently."""
        self._execute("DELETE FROM rows", ())
        self._execute("DELETE FROM meta", ())
        self.commit()

    def failed(self) -> int:
        """Return how many rows are errors."""
        return int(self._db.execute("SELECT count(*) FROM rows WHERE failed").fetchone()[0])

    def errors(self) -> Counter[str]:
        """Return how many rows have each error code."""
        failed = self._db.execute("SELECT row FROM rows WHERE failed")
        return Counter(json.loads(text)["error"]["code"] for (text,) in failed)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM rows").fetchone()[0])

    def close(self) -> None:
        """Close without committing: what was not committed is done again by the next run."""
        self._db.close()


def _is_damaged(error: sqlite3.Error) -> bool:
    return "not a database" in str(error) or "malformed" in str(error)


def _has_our_header(path: Path) -> bool:
    """Whether a file that SQLite cannot read begins like a journal (bytes 68 to 71: the application id)."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError:
        return False
    return head.startswith(_HEADER) and head[68:72] == _APPLICATION.to_bytes(4)
