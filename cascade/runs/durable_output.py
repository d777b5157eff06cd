"""Keeps an output file and its journal in step, so that the file has exactly one row for each photo.

OUTPUT.state stands beside OUTPUT and stays there, so that --resume can also add photos that are new. The
output is what the journal says and nothing else: it is cut back to the last commit, and written anew from the
journal when it is missing, or when a photo that has changed left an outdated row in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from cascade.errors import OutputError
from cascade.ownership import check_writable, is_marked
from cascade.runs.crash_guard import pid_of_run, running_path
from cascade.runs.journal import Journal, LockedError
from cascade.runs.reading import Item
from cascade.runs.replacement import replacing
from cascade.runs.row_sink import RowSink, exists_message, tail_hash
from cascade.runs.rows import Row
from cascade.runs.writers import RowFormat

__all__ = ["DurableOutput", "check_place", "open_output", "state_path"]

#: Most seconds between two commits. Each waits for the disk a few times, so more often would cost speed.
_COMMIT_INTERVAL: Final = 1.0
#: Seconds to the first commit; the interval doubles from there, so that short runs have something to keep.
_FIRST_COMMIT: Final = 0.05

#: Writes a whole output of a format that cannot be appended to.
WholeWriter = Callable[[Path, Iterator[Row]], None]


def state_path(output: Path) -> Path:
    """Return where the journal of an output is."""
    return output.with_name(output.name + ".state")


class DurableOutput:
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
        self.end_text()
        self.commit()
        if self.journal is None:
            return
        if self._whole is not None and self._output is not None:
            self._whole(self._output, self.journal.rows())
            self._remember_file(self._output)
        elif self.journal.get("outdated") == "1":
            self.rewrite()

    def end_text(self) -> None:
        """Write what ends the format, so that standard output is whole also when a run is stopped."""
        if self._text is not None and self._sink is not None and self._sink.path is None:
            self._sink.write(self._text.footer())

    def _remember_file(self, output: Path) -> None:
        """Keep what the output looks like, so that --restart knows it for ours."""
        assert self.journal is not None
        length = output.stat().st_size
        with output.open("rb") as file:
            self.journal.set("tail", tail_hash(file.fileno(), length))
        self.journal.set("length", str(length))
        self.journal.commit()

    def rewrite(self) -> None:
        """Write the output anew from the journal; interrupted, it is done again by the next run."""
        assert self.journal is not None
        assert self._text is not None
        assert self._sink is not None
        assert self._sink.path is not None
        path = self._sink.path
        self.journal.set("outdated", "1")
        self.journal.commit()
        try:
            with replacing(path) as new, closing(RowSink(new, append=True)) as sink:
                sink.write(self._text.header())
                for row in self.journal.rows():
                    sink.write(self._text.format(row))
        except OSError as error:
            raise OutputError.writing(path, error) from error
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


def open_output(
    output: Path | None,
    text: RowFormat | None,
    fingerprint: dict[str, str],
    *,
    resume: bool,
    restart: bool,
    remember: bool,
    whole: WholeWriter | None = None,
) -> DurableOutput:
    """Open an output, new or to be continued.

    Args:
        output: the file; None is standard output.
        text: see `DurableOutput`.
        fingerprint: name -> value of everything that must not change between a run and its continuation.
        resume: continue what is there; simply begin if nothing is.
        restart: begin anew in place of what an earlier run wrote there.
        remember: whether standard output needs a journal too (in a temporary file).
        whole: see `DurableOutput`.

    Raises:
        OutputError: when something is there that may not be overwritten or cannot be continued, or another
            process writes it.
        UsageError: when the run was started with another fingerprint.
    """
    if output is None:
        sink = RowSink(None)
        if text is not None:
            sink.write(text.header())
        return DurableOutput(text, sink, Journal(None) if remember else None)
    check_place(output, resume=resume, restart=restart)
    journal = _open_journal(output, restart=restart)
    try:
        journal.check(fingerprint)
        journal.commit()
        if text is None:
            return DurableOutput(None, None, journal, whole, output)
        return _continue(output, text, journal)
    except BaseException:
        journal.close()
        raise


def _continue(output: Path, text: RowFormat, journal: Journal) -> DurableOutput:
    length = int(journal.get("length") or 0)
    sink = RowSink(output, append=True)
    durable = DurableOutput(text, sink, journal)
    if journal.get("outdated") == "1" or (length and sink.length == 0):
        durable.rewrite()
    elif length == 0:  # new, or killed before the first commit
        sink.truncate(0)
        sink.write(text.header())
        durable.commit()
    elif sink.length < length or sink.tail_hash(length) != journal.get("tail"):
        sink.close()
        raise OutputError(
            f"{output}: was changed by something else since the run was interrupted; give it back its "
            "content, move it away (its rows are written again), or begin again with --restart"
        )
    else:
        sink.truncate(length)
    return durable


def check_place(output: Path, *, resume: bool, restart: bool) -> None:
    """Make sure that an output may be begun, continued, or begun again.

    Raises:
        OutputError: when it may not.
    """
    state = state_path(output)
    exists, has_state = output.exists(), state.exists()
    if exists and not output.is_file():
        raise OutputError(f"{output}: is no regular file; leave out --output and redirect standard output")
    if exists and not has_state and not is_marked(output):
        raise OutputError(
            f"{output}: was not written by cascade (it has no {state.name} beside it) and is not "
            "overwritten; move it away, or give another name to --output"
        )
    if (exists or has_state) and not resume and not restart:
        raise OutputError(exists_message(output if exists else state))
    if exists and not has_state and not restart:
        raise OutputError(
            f"{output}: has no {state.name} beside it, so it cannot be continued; "
            "begin again with --restart, or give another name to --output"
        )
    check_writable(output.parent, "--output")


def _open_journal(output: Path, *, restart: bool) -> Journal:
    """Open and lock the journal of an output; with ``restart``, only then let go of what is there."""
    state = state_path(output)
    try:
        journal = Journal(state, replace_damaged=restart)
    except LockedError as error:
        pid = pid_of_run(output)
        who, stop = (f" (process {pid})", f", or stop it with: kill {pid}") if pid else ("", "")
        raise OutputError(
            f"{output}: another cascade{who} is writing this output; wait for it to end{stop}"
        ) from error
    if not restart:
        return journal
    try:
        if output.exists() and not (_is_as_left(output, journal) or is_marked(output)):
            raise OutputError(
                f"{output}: is not what cascade wrote there, and is not overwritten; move it away, or give "
                "another name to --output"
            )
        journal.clear()
        for path in (output, running_path(output)):
            _remove(path)
    except BaseException:
        journal.close()
        raise
    return journal


def _is_as_left(output: Path, journal: Journal) -> bool:
    """Whether the output holds, up to its last commit, what the journal remembers."""
    length = int(journal.get("length") or 0)
    if length == 0 or output.stat().st_size < length:
        return False
    with output.open("rb") as file:
        return tail_hash(file.fileno(), length) == journal.get("tail")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be deleted ({error.strerror or error})") from error
