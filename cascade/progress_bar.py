"""Makes the progress bars of every command; they show on standard error, and only if it is a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["CountBar", "make_bar"]


def make_bar(*fields: str, console: Console | None = None) -> Progress:
    """Return a bar of rich, not started, that disappears when it is stopped.

    Args:
        fields: names of texts that stand behind the count; ``add_task`` and ``update`` take them by name.
        console: where it is shown; standard error by default.
    """
    # Imported here: it costs a tenth of a second that a plain run need not pay.
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        *(progress.TextColumn("{task.fields[" + field + "]}") for field in fields),
        progress.TimeRemainingColumn(),
        console=console or Console(stderr=True),
        transient=True,
        # Rows go to standard output by themselves; rich must not take it over.
        redirect_stdout=False,
        redirect_stderr=False,
    )


class CountBar:
    """Photos done out of a known number; a context manager.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._bar: Any = make_bar() if sys.stderr.isatty() and not quiet else None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._task = self._bar.add_task("photos", total=None)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` photos are finished."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
