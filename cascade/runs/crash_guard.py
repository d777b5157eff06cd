"""Finds the photo that ended the process, so that the next run passes it over.

Decoders are written in C, and memory has an end: a photo that crashes one, or for which the system kills
the process, would stop every continuation of its run too. While a run is at work, OUTPUT.running names its
process and every photo that is begun; Python's faulthandler writes there as well when the process dies of
SIGSEGV, SIGBUS, SIGABRT, SIGFPE or SIGILL. A run that ends by itself deletes the file. A run that finds it
reads the photos that were begun and have no row alone, one after the other. The one that ends the process
again is known: after one such try if a decoder crashed, after three if the process was killed from outside,
since `kill -9` and a lack of memory cannot be told apart. It gets a row that says so and is left alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from cascade.prediction import ErrorInfo
from cascade.runs.journal import Journal
from cascade.runs.reading import Item

__all__ = ["CrashGuard", "pid_of_run", "running_path"]

_log = logging.getLogger(__name__)

#: Most photos that are read alone after a crash, should the folder have changed beyond recognition.
_MOST_ALONE: Final = 2000
#: Times that a process may be killed while it reads one photo alone. Fewer would blame photos for kills that
#: only happened to hit them, as when a slow machine is restarted again and again.
_KILLS: Final = 3
#: The file begins anew after this many bytes.
_MOST_BYTES: Final = 1 << 20
_PID, _BEGUN, _ALONE, _TOGETHER = b"process ", b"begun ", b"alone ", b"together"
_FATAL_SIGN: Final = b"Fatal Python error"
_FATAL: Final = ErrorInfo("fatal", "reading this photo crashed cascade before; it is passed over")
_KILLED: Final = ErrorInfo(
    "killed",
    "cascade was killed each time it read this photo, probably for lack of memory; it is passed over. "
    "With more memory, try it again with --resume --retry-failed",
)


def running_path(output: Path) -> Path:
    """Return where a run notes that it is at work."""
    return output.with_name(output.name + ".running")


def pid_of_run(output: Path) -> int | None:
    """Return the number of the process that writes an output; None if it is not known."""
    try:
        with running_path(output).open("rb") as file:
            first = file.readline()
        return int(first.removeprefix(_PID)) if first.startswith(_PID) else None
    except (OSError, ValueError):
        return None


class CrashGuard:
    """Notices that the last run died, and finds the photo; see the module.

    Args:
        output: of the run; None (standard output) has no continuation that would need a guard.
        journal: of the run.

    Attributes:
        suspects: paths that were begun when the last run died.
        culprits: path -> the error of its row, for photos that are known to end the process.
    """

    def __init__(self, output: Path | None, journal: Journal | None) -> None:
        self._journal = journal if output is not None else None
        self._path = None if output is None else running_path(output)
        self._file: int | None = None
        self._crash_log = False
        self._bytes = 0
        self._in_work: dict[str, None] = {}
        self.suspects: set[str] = set()
        self.culprits: dict[str, ErrorInfo] = {}
        if self._path is not None and self._journal is not None:
            with contextlib.suppress(OSError):
                self._judge(self._path.read_bytes())

    def _judge(self, left: bytes) -> None:
        """Find out from what a dead run left which photos it may have died of."""
        alone: str | None = None
        for line in left.splitlines():
            name, _, rest = line.partition(b" ")
            if name + b" " in (_BEGUN, _ALONE):
                with contextlib.suppress(ValueError):  # the end of the file may be cut
                    path = os.fsdecode(bytes.fromhex(rest.decode("ascii")))
                    self.suspects.add(path)
                    alone = path if name + b" " == _ALONE or path == alone else None
            elif line == _TOGETHER:
                alone = None
        if alone is None:
            return
        assert self._journal is not None
        key = _tries_key(alone)
        tries = int(self._journal.get(key) or 0) + 1
        self._journal.set(key, str(tries))
        self._journal.commit()
        if _FATAL_SIGN in left:
            self.culprits[alone] = _FATAL
        elif tries >= _KILLS:
            self.culprits[alone] = _KILLED

    def __enter__(self) -> Self:
        if self._path is not None:
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
                self._file = os.open(self._path, flags, 0o666)
        self._renew()
        # Somebody else's faulthandler (python -X faulthandler, pytest) is left as it is.
        if self._file is not None and not faulthandler.is_enabled():
            faulthandler.enable(self._file, all_threads=True)
            self._crash_log = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._crash_log:
            faulthandler.disable()
        if self._file is not None and self._path is not None:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            self._file = None

    def begin(self, item: Item) -> None:
        """Note that a photo is read from now on."""
        self._in_work[item.found.path] = None
        self._note(_BEGUN, item.found.path)
        if self._bytes > _MOST_BYTES:
            self._renew()

    def end(self, path: str) -> None:
        """Note that a photo has its row."""
        self._in_work.pop(path, None)

    def clear_of_suspicion(self, path: str) -> None:
        """Note that a photo has a row already, so the last run did not die of it."""
        self.suspects.discard(path)

    def _renew(self) -> None:
        if self._file is None:
            return
        os.ftruncate(self._file, 0)
        self._bytes = 0
        self._write(_PID + str(os.getpid()).encode() + b"\n")
        for path in (*self.suspects, *self._in_work):
            self._note(_BEGUN, path)

    def _note(self, what: bytes, path: str) -> None:
        self._write(what + os.fsencode(path).hex().encode() + b"\n")

    def _write(self, line: bytes) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk is noticed where rows are written
                self._bytes += os.write(self._file, line)

    def one_by_one(self, items: Iterator[Item], commit: Callable[[], None]) -> Iterator[Item]:
        """Yield the items that are to be read alone; known culprits with an error in place of reading them.

        Args:
            items: what follows; items that are not yielded here remain in it.
            commit: makes rows permanent, so that only photos without a row are suspects.
        """
        if not self.suspects or self._journal is None:
            return
        _log.warning("the last run was cut off; the photos it was reading are now read one by one")
        for _, item in zip(range(_MOST_ALONE), items, strict=False):
            path = item.found.path
            if path in self.culprits:
                item = replace(item, found=replace(item.found, error=self.culprits[path]))
            else:
                self._note(_ALONE, path)
            yield item
            commit()
            self.suspects.discard(path)
            if not self.suspects:
                break
        self.suspects.clear()
        self._write(_TOGETHER + b"\n")


def _tries_key(path: str) -> str:
    return f"killed:{os.fsencode(path).hex()}"
