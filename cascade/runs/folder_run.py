"""Takes one run from the photos that were found to their rows and a `Summary`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cascade.classifier import Cascade
from cascade.imaging.files import Found
from cascade.runs.crash_guard import CrashGuard
from cascade.runs.durable_output import DurableOutput
from cascade.runs.progress import Progress
from cascade.runs.reading import Item, with_contents, with_hashes
from cascade.runs.rows import Row
from cascade.runs.stream import classify_stream
from cascade.runs.summary import Summary

__all__ = ["FolderRun"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class FolderRun:
    """Classifies what was found, each photo once.

    Attributes:
        cascade: the classifier.
        output: takes the rows.
        bundle: see `cascade.runs.rows.bundle_id`.
        by_content: recognise photos by their content: those that have a row are not read again, and
            identical files are classified once.
        stopped: whether the user asked for an end.
        progress: told of every row.
        observers: called with each photo and its row after the output has it, also where an earlier run had
            classified it.
        guard: finds the photo that ended the run before this one.
        retry_failed: read photos again whose row is an error.
    """

    cascade: Cascade
    output: DurableOutput
    bundle: str
    by_content: bool
    stopped: Callable[[], bool]
    progress: Progress
    observers: Sequence[Callable[[Found, Row], None]] = ()
    guard: CrashGuard | None = None
    retry_failed: bool = False

    _summary: Summary = field(default_factory=Summary, init=False)
    #: SHA-256 of photos that failed in this run too.
    _failed_again: set[str] = field(default_factory=set, init=False)

    def run(self, batches: Iterable[Iterable[Found]]) -> Summary:
        """Classify batch after batch and return what it amounted to; commits after each batch."""
        for batch in batches:
            started = time.perf_counter()
            items = self._to_classify(batch)
            for item in self.guard.one_by_one(items, self.output.commit) if self.guard else ():
                self._classify([item])
                if self.stopped():
                    break
            self._classify(items)
            self.output.commit()
            seconds = time.perf_counter() - started
            _log.debug("batch done in %.1f s, %d rows so far", seconds, self._summary.photos)
            if self.stopped():
                break
        return self._summary

    def _classify(self, items: Iterable[Item]) -> None:
        classify_stream(
            self.cascade,
            items,
            self._emit,
            bundle=self.bundle,
            known=self._known,
            stopped=self.stopped,
            begin=self.guard.begin if self.guard is not None else lambda item: None,
        )

    def _to_classify(self, found: Iterable[Found]) -> Iterator[Item]:
        """Yield the photos that have no row yet, with their bytes where they are no local files."""
        if self.by_content:
            return self._not_done(with_hashes(found))
        return with_contents(self._not_done(map(Item, found)))

    def _not_done(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the photos that have no row yet, and count the others."""
        journal = self.output.journal
        for item in items:
            if journal is None or not journal.is_done(
                item, by_content=self.by_content, retry_failed=self.retry_failed
            ):
                yield item
                continue
            self._summary.already_done += 1
            self.progress.skip()
            if self.guard is not None:
                self.guard.clear_of_suspicion(item.found.path)
            if self.observers and (row := journal.row_of(item.found.path)) is not None:
                self._tell_observers(item, row)

    def _emit(self, item: Item, row: Row) -> None:
        """Keep the row of a photo, and tell everybody who wants to know."""
        self.output.add(item, row)
        if self.guard is not None:
            self.guard.end(item.found.path)
        self._summary.add(row)
        self.progress.advance(failed=row["error"] is not None)
        if row["error"] is not None:
            _log.info("%s: %s", row["path"], row["error"]["message"])
            if self.retry_failed and item.sha256 is not None:
                self._failed_again.add(item.sha256)
        self._tell_observers(item, row)

    def _tell_observers(self, item: Item, row: Row) -> None:
        for observer in self.observers:
            observer(item.found, row)

    def _known(self, sha256: str) -> Row | None:
        """Return the row of a photo with this content, unless it is an old error that is to be retried."""
        row = None if self.output.journal is None else self.output.journal.known(sha256)
        old_error = row is not None and row["error"] is not None and sha256 not in self._failed_again
        return None if self.retry_failed and old_error else row
