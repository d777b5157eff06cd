"""Shows how a training run goes, on standard error and, only if asked, at Weights & Biases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import Progress, TaskID

from cascade.progress_bar import make_bar
from cascade.training.fit.averaging import LAST
from cascade.training.tracking import Tracker

__all__ = ["TrainingLog", "table_console"]

#: Columns of a table that goes to a file or a pipe.
_WIDE: Final = 160


def table_console() -> Console:
    """Return what writes tables to standard output; they are not squeezed where nobody sees a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


class TrainingLog:
    """Shows what happens; a context manager.

    Args:
        tracker: what goes to Weights & Biases as well; nothing by default.
        console: where to write; standard error by default.
    """

    def __init__(
        self,
        *,
        tracker: Tracker | None = None,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.tracker = tracker or Tracker()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._last_line = 0.0

    def __enter__(self) -> Self:
        self.tracker.start()
        if self.console.is_terminal:
            self._progress = make_bar("metrics", console=self.console)
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        self.tracker.finish(failed=error[0] is not None)

    def line(self, text: str) -> None:
        """Write one line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, stage: str, what: str, done: int, total: int, **metrics: float) -> None:
        """Show progress within one piece of work, e.g. an epoch."""
        text = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        title = f"{stage}: {what}"
        if self._progress is None:
            # No terminal: a line now and then, so that a log file stays readable.
            now = time.monotonic()
            if done == total or now - self._last_line > 30:
                self._last_line = now
                self.line(f"{title}: {done}/{total}  {text}".rstrip())
            return
        if self._task is None:
            self._task = self._progress.add_task(title, total=total, metrics=text)
        elif title != self._what:
            self._progress.reset(self._task, description=title, total=total)
        self._what = title
        self._progress.update(self._task, completed=done, metrics=text)

    def epoch(self, stage: str, number: int, total: int, metrics: dict[str, float]) -> None:
        """Record the metrics of a finished epoch, and say which weights each belongs to."""
        self.line(f"{stage}: epoch {number}/{total}  {_by_weights(metrics)}")
        metrics = {f"{stage}/{name}": value for name, value in metrics.items()}
        self.record(metrics | {f"{stage}/epoch": number})

    def record(self, metrics: dict[str, Any]) -> None:
        """Hand metrics to Weights & Biases, if it was asked for."""
        self.tracker.log(metrics)


def _by_weights(metrics: Mapping[str, float]) -> str:
    """Return the metrics as text: of the weights in training, then of their moving average."""
    text = {name: f"{name.removeprefix(LAST)} {value:.4g}" for name, value in metrics.items()}
    averaged = [name for name in metrics if name.startswith(("monitor_", "development_"))]
    trained = [name for name in metrics if name not in averaged and name != "seconds"]
    parts = [("weights in training", trained), ("averaged weights", averaged)]
    texts = [f"{whose}: {'  '.join(text[name] for name in names)}" for whose, names in parts if names]
    return " | ".join([*texts, *([text["seconds"]] if "seconds" in metrics else [])])
