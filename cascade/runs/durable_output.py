"""An output file and its journal, kept in step. In: rows. Out: a file with exactly one row for each photo.

OUTPUT.state stands beside OUTPUT and stays there, so that --resume can also add photos that are new. The
output is what the journal says and nothing else: it is cut back to the last commit, and written anew from the
journal when it is missing, or when a photo that has changed left an outdated row in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cascade.errors import OutputError
from cascade.runs.crash_guard import crash_path
from cascade.runs.journal import Journal
from cascade.runs.rows import Row
from cascade.runs.stream import Item
from cascade.runs.writers import RowFormat, RowSink, exists_message

__all__ = ["Store", "open_store", "state_path"]

#: Most seconds between two commits. Each waits for the disk a few times, so more often would cost speed.
_COMMIT_INTERVAL: Final = 1.0
#: Seconds to the first commit; the interval doubles from there, so that short runs have something to keep.
_FIRST_COMMIT: Final = 0.05

#: Writes a whole output of a format that cannot be appended to.
WholeWriter = Callable[[Path, Iterator[Row]], None]


def state_path(output: Path) -> Path:
    """Return where the journal of an output is."""
    return output.with_name(output.name + ".state")


class Store:
    """Takes rows; see the module.

    Args:
        text: how rows become text; None for a format that is written whole at the end, by ``whole``.
        sink: where the text goes; None likewise.
        journal: None if nothing has to be remembered.
        whole: see `WholeWriter`.
        output: the file, for ``whole``.
    """

    def __init__(
        self,
        text: RowFormat | None,
        sink: RowSink | None,
        journal: Journal | None,
        whole: WholeWriter | None = None,
        output: Path | None = None,
    ) -> None:
        self._text = text
        self._sink = sink
        self.journal = journal
        self._whole = whole
        self._output = output
        self._committed = time.monotonic()
        self._interval = _FIRST_COMMIT

    def add(self, item: Item, row: Row) -> None:
        """Write a row, and remember it."""
        if self._text is not None and self._sink is not None:
            self._sink.write(self._text.format(row))
        if self.journal is None:
            return
        if self.journal.add(item, row):
            self.journal.set("outdated", "1")
        if time.monotonic() - self._committed >= self._interval:
            self._interval = min(2 * self._interval, _COMMIT_INTERVAL)
            self.commit()

    def commit(self) -> None:
        """Make every row so far permanent: first the output, then the journal that counts on it."""
        if self.journal is not None:
            if self._sink is not None and self._sink.path is not None:
                self._sink.sync()
                length = self._sink.length
                self.journal.set("length", str(length))
                self.journal.set("tail", self._sink.tail_hash(length))
            self.journal.commit()
        self._committed = time.monotonic()

    def finish(self) -> None:
        """Commit, and bring the output into its final form."""
        self.commit()
        if self.journal is None:
            return
        if self._whole is not None and self._output is not None:
            self._whole(self._output, self.journal.rows())
        elif self.journal.get("outdated") == "1":
            self.rewrite()

    def rewrite(self) -> None:
        """Write the output anew from the journal; interrupted, it is done again by the next run."""
        assert self.journal is not None
        assert self._text is not None
        assert self._sink is not None
        assert self._sink.path is not None
        path = self._sink.path
        self.journal.set("outdated", "1")
        self.journal.commit()
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        sink = RowSink(new)
        try:
            sink.write(self._text.header())
            for row in self.journal.rows():
                sink.write(self._text.format(row))
            sink.sync()
        finally:
            sink.close()
        new.replace(path)
        self._sink.close()
        self._sink = RowSink(path, append=True)
        self.journal.set("outdated", "0")
        self.commit()

    def close(self) -> None:
        """Let go of the files. What was not committed is done again by the next run."""
        if self._sink is not None:
            self._sink.close()
        if self.journal is not None:
            self.journal.close()


def open_store(
    output: Path | None,
    text: RowFormat | None,
    facts: dict[str, str],
    *,
    resume: bool,
    restart: bool,
    remember: bool,
    whole: WholeWriter | None = None,
) -> Store:
    """Open an output, new or to be continued.

    Args:
        output: the file; None is standard output.
        text: see `Store`.
        facts: name -> value of everything that must not change between a run and its continuation.
        resume: continue what is there; simply begin if nothing is.
        restart: delete what is there and begin.
        remember: whether standard output needs a journal too (in a temporary file).
        whole: see `Store`.

    Raises:
        OutputError: when something is there that may not be overwritten or cannot be continued.
        UsageError: when the run was started with other facts.
    """
    if output is None:
        sink = RowSink(None)
        if text is not None:
            sink.write(text.header())
        return Store(text, sink, Journal(None) if remember else None)
    state = state_path(output)
    if restart:
        for path in (output, state, crash_path(output)):
            _remove(path)
    exists, has_state = output.exists(), state.exists()
    if (exists or has_state) and not resume and not restart:
        raise OutputError(exists_message(output if exists else state))
    if exists and not has_state:
        raise OutputError(
            f"{output}: has no {state.name} beside it, so it cannot be continued; "
            "begin again with --restart, or give another name to --output"
        )
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder; make it first")
    journal = Journal(state)
    try:
        journal.check(facts)
        journal.commit()
        if text is None:
            return Store(None, None, journal, whole, output)
        return _continue(output, text, journal)
    except BaseException:
        journal.close()
        raise


def _continue(output: Path, text: RowFormat, journal: Journal) -> Store:
    length = int(journal.get("length") or 0)
    sink = RowSink(output, append=True)
    store = Store(text, sink, journal)
    if journal.get("outdated") == "1" or (length and sink.length == 0):
        store.rewrite()
    elif length == 0:  # new, or killed before the first commit
        sink.truncate(0)
        sink.write(text.header())
        store.commit()
    elif sink.length < length or sink.tail_hash(length) != journal.get("tail"):
        sink.close()
        raise OutputError(
            f"{output}: was changed by something else since the run was interrupted; give it back its "
            "content, move it away (its rows are written again), or begin again with --restart"
        )
    else:
        sink.truncate(length)
    return store


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be deleted ({error.strerror or error})") from error
