"""Classifies the photos that were found and hands over their rows in the same order.

`Cascade.predict_many` takes paths, or bytes of photos that are no local files, and gives answers in order.
This module keeps the places of what needs no answer: folders that could not be entered, and files whose
content has an answer already. Memory is bounded by `MOST_WAITING` places, however long the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from cascade.classifier import Cascade
from cascade.prediction import Prediction
from cascade.runs.reading import Item
from cascade.runs.rows import Row, make_row, rename_row

__all__ = ["MOST_WAITING", "classify_stream"]

#: Places that may wait for an answer before duplicates are simply classified again.
MOST_WAITING: Final = 2000


@dataclass(slots=True)
class _Place:
    item: Item
    #: None while the answer is being worked on.
    row: Row | None
    #: Whether it takes the answer of an earlier place with the same content.
    copy: bool = False


@dataclass(slots=True)
class _Queue:
    """The photos that were taken and have not been emitted, in their order."""

    emit: Callable[[Item, Row], None]
    known: Callable[[str], Row | None]
    bundle: str
    places: deque[_Place] = field(default_factory=deque)
    #: SHA-256 of the contents that are being worked on.
    waiting: set[str] = field(default_factory=set)

    def take(self, item: Item) -> bool:
        """Add a photo; return whether it has to be classified."""
        found, digest, item = item.found, item.sha256, item.bare
        if found.error is not None:
            row = make_row(Prediction(path=found.path, status="error", error=found.error), self.bundle)
            self.places.append(_Place(item, row))
            return False
        if digest is not None and len(self.places) < MOST_WAITING:
            if digest in self.waiting:
                self.places.append(_Place(item, None, copy=True))
                return False
            if (answer := self.known(digest)) is not None:
                self.places.append(_Place(item, rename_row(answer, found.path)))
                return False
        if digest is not None:
            self.waiting.add(digest)
        self.places.append(_Place(item, None))
        return True

    def answer(self, prediction: Prediction) -> None:
        """Give an answer to the first place, which is the one that waits for it."""
        # Answers keep their order, and after every drain the first place is one that waits for its answer.
        place = self.places[0]
        place.row = make_row(replace(prediction, path=place.item.found.path), self.bundle)
        if place.item.sha256 is not None:
            self.waiting.discard(place.item.sha256)

    def drain(self) -> None:
        """Emit the rows that are ready, up to the first that is not."""
        while self.places:
            head = self.places[0]
            if head.copy and head.row is None:
                answer = self.known(head.item.sha256 or "")
                assert answer is not None  # the original stood before it and was emitted
                head.row = rename_row(answer, head.item.found.path)
            if head.row is None:
                return
            self.places.popleft()
            self.emit(head.item, head.row)


def classify_stream(
    cascade: Cascade,
    items: Iterable[Item],
    emit: Callable[[Item, Row], None],
    *,
    bundle: str,
    known: Callable[[str], Row | None],
    stopped: Callable[[], bool],
    begin: Callable[[Item], None] = lambda item: None,
) -> None:
    """Classify items and emit one row for each, in their order.

    Args:
        cascade: the classifier.
        items: what was found.
        emit: takes each item with its row; by the time it returns, ``known`` must know the row's content.
        bundle: see `cascade.runs.rows.bundle_id`.
        known: returns the row of a photo with this SHA-256, if one was emitted.
        stopped: when true, no more items are taken; those being worked on are finished.
        begin: called with each item before its photo is read.
    """
    queue = _Queue(emit, known, bundle)

    def feed() -> Iterator[str | bytes]:
        for item in items:
            if stopped():
                return
            if queue.take(item):
                begin(item)
                yield item.found.path if item.content is None else item.content
            queue.drain()

    for prediction in cascade.predict_many(feed()):
        queue.answer(prediction)
        queue.drain()
    queue.drain()
