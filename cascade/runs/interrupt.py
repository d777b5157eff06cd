"""Stops a run when the user presses Ctrl-C or the system ends it.

The first Ctrl-C lets the photos that are being worked on finish, so that nothing is done twice. The second
one ends the process at once. Neither can harm the output: what is not in the journal is cut off and done
again by --resume.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupt"]


class Interrupt:
    """While it is entered, Ctrl-C and SIGTERM ask for an orderly end instead of raising.

    Args:
        on_stop: called once, when the end was asked for.
        before_exit: called before a second Ctrl-C ends the process; gives the terminal back.
    """

    def __init__(self, on_stop: Callable[[], None], before_exit: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._before_exit = before_exit
        self._signal: int | None = None
        self._old: dict[int, Any] = {}

    @property
    def stopped(self) -> bool:
        """Whether the end was asked for."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM: 128 plus the number of the signal."""
        return 128 + (self._signal or signal.SIGINT)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            self._before_exit()
            sys.stderr.flush()
            os._exit(128 + number)  # no clean-up: worker threads would have to finish first
        self._signal = number
        self._on_stop()
