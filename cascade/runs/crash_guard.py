"""Photos that end the process. In: an output whose last run died inside native code. Out: the photo that did
it, passed over by the next run.

Decoders are written in C, and a photo that crashes one would crash every continuation of its run too. While
a run is at work, Python's faulthandler stands ready to write to OUTPUT.crash when the process dies of
SIGSEGV, SIGBUS, SIGABRT, SIGFPE or SIGILL (kill -9 and power cuts leave it empty, so they never put the blame
on a photo). The run that finds it filled goes on one photo at a time, noting each in the journal before it is
read; if it dies as well, the run after it knows the photo, writes a row that says so, and leaves it alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Final, Self

from cascade.prediction import ErrorInfo
from cascade.runs.journal import Journal
from cascade.runs.stream import Item

__all__ = ["CrashGuard", "crash_path"]

_log = logging.getLogger(__name__)

#: Photos to read one by one after a crash: those that were worked on or not yet committed when it happened.
_CAUTIOUS_PHOTOS: Final = 2000
_TRYING: Final = "trying"
_FATAL: Final = ErrorInfo("fatal", "reading this photo crashed cascade before; it is passed over")


def crash_path(output: Path) -> Path:
    """Return where a crash is noted."""
    return output.with_name(output.name + ".crash")


class CrashGuard:
    """Notices a crash, and finds the photo after one; see the module.

    Args:
        output: of the run; None (standard output) has no continuation that would need a guard.
        journal: of the run.

    Attributes:
        cautious: whether the run before this one crashed, so that photos are to be read one by one.
        culprit: the path that crashed it, once that is known.
    """

    def __init__(self, output: Path | None, journal: Journal | None) -> None:
        self._journal = journal if output is not None else None
        self._path = None if output is None else crash_path(output)
        self._file: IO[bytes] | None = None
        self.cautious = False
        self.culprit: str | None = None
        if self._path is None or self._journal is None:
            return
        with contextlib.suppress(OSError):
            self.cautious = self._path.stat().st_size > 0
        tried = self._journal.get(_TRYING)
        if self.cautious and tried:
            self.culprit = os.fsdecode(bytes.fromhex(tried))

    def __enter__(self) -> Self:
        # Somebody else's faulthandler (python -X faulthandler, pytest) is left as it is.
        if self._path is not None and not faulthandler.is_enabled():
            with contextlib.suppress(OSError):
                self._file = self._path.open("wb")
                faulthandler.enable(self._file, all_threads=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None and self._path is not None:
            faulthandler.disable()
            self._file.close()
            self._path.unlink(missing_ok=True)

    def one_by_one(self, items: Iterator[Item], commit: Callable[[], None]) -> Iterator[Item]:
        """Yield the items that are to be read alone; the known culprit with an error in place of reading it.

        Args:
            items: what follows; items that are not yielded here remain in it.
            commit: makes the journal permanent, so that it names each photo before it is read.
        """
        if not self.cautious or self._journal is None:
            return
        _log.warning("the last run crashed; photos are read one by one to find out which of them did it")
        for item in islice(items, _CAUTIOUS_PHOTOS):
            if item.found.path == self.culprit:
                yield replace(item, found=replace(item.found, error=_FATAL))
                continue
            self._journal.set(_TRYING, os.fsencode(item.found.path).hex())
            commit()
            yield item
        self._journal.set(_TRYING, "")
        self.cautious = False
