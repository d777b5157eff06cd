"""Shows how far a folder run is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

from cascade.errors import CascadeError
from cascade.progress_bar import make_bar
from cascade.runs.summary import duration

__all__ = ["Progress"]

#: Seconds between two plain lines: a log of a night stays readable.
_PLAIN_INTERVAL: Final = 10.0


class Progress:
    """Photos so far, photos per second, time left, errors.

    Args:
        quiet: show nothing.
        count: returns how many photos there will be; it runs beside the work, since counting a million
            files takes a while. None if nobody can know.
    """

    def __init__(self, *, quiet: bool, count: Callable[[], int] | None = None) -> None:
        self._done = self._failed = 0
        self._skipped_before_total = 0
        self.total: int | None = None
        self._started = self._spoke = time.monotonic()
        self.bar: Any = None
        self._terminal = sys.stderr.isatty() and not quiet
        self._plain = not self._terminal and not quiet
        if not quiet and count is not None:
            threading.Thread(target=self._count, args=(count,), daemon=True, name="count").start()

    def __enter__(self) -> Self:
        if self._terminal:
            self.bar = make_bar("rate", "errors")
            self._task = self.bar.add_task("photos", total=None, rate="", errors="")
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away and give the terminal back."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def advance(self, *, failed: int, rows: int = 1) -> None:
        """Count rows, and those of them that are errors."""
        self._done += rows
        self._failed += failed
        now = time.monotonic()
        if now - self._spoke < (_PLAIN_INTERVAL if self._plain else 0.1):
            return
        if self.bar is not None:
            self._spoke = now
            self.bar.update(
                self._task,
                completed=self._done,
                total=self.total,
                rate=f"{self._rate(now):.1f} photos/s",
                errors=f"{self._failed:,} failed" if self._failed else "",
            )
        elif self._plain:
            self._spoke = now
            print(self._line(now), file=sys.stderr, flush=True)

    def skip(self) -> None:
        """Count one photo less to do: an earlier run did it."""
        if self.total is not None:
            self.total = max(self.total - 1, self._done)
        else:
            self._skipped_before_total += 1

    def _rate(self, now: float) -> float:
        return self._done / max(now - self._started, 1e-9)

    def _line(self, now: float) -> str:
        rate = self._rate(now)
        text = f"{self._done:,}"
        if self.total is not None:
            text += f" of {self.total:,}"
        text += f" photos, {rate:.1f} photos/s, {self._failed:,} failed"
        if self.total is not None and rate > 0:
            text += f", about {duration(max(self.total - self._done, 0) / rate)} left"
        return text

    def _count(self, count: Callable[[], int]) -> None:
        # A folder that vanishes is for the run to complain about; here it only costs the time left.
        with contextlib.suppress(CascadeError, OSError):
            self.total = max(count() - self._skipped_before_total, 0)
