"""Classifying what was found, in order. In: `Found`s. Out: one `Item` for each, handed to a function.

`Cascade.predict_many` takes paths and gives answers in the same order. Around it, this module keeps the
places of what needs no answer: folders that could not be entered, and files whose content was answered
already. Memory is bounded by `_WAITING` places, however long the run.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cascade.classifier import Cascade
from cascade.imaging.files import Found
from cascade.prediction import Prediction
from cascade.runs.rows import Row, make_row, rename_row

__all__ = ["Item", "classify_stream", "content_hash", "hash_ahead"]

#: Places that may wait for an answer before duplicates are simply classified again.
_WAITING: Final = 2000
_HASH_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class Item:
    """A photo to classify, and the SHA-256 of its content where that is wanted and could be read."""

    found: Found
    sha256: str | None = None


@dataclass(slots=True)
class _Place:
    item: Item
    #: None while the answer is being worked on.
    row: Row | None
    #: Whether it takes the answer of an earlier place with the same content.
    copy: bool = False


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
    places: deque[_Place] = deque()
    waiting: set[str] = set()

    def drain() -> None:
        while places:
            head = places[0]
            if head.copy and head.row is None:
                answer = known(head.item.sha256 or "")
                assert answer is not None  # the original stood before it and was emitted
                head.row = rename_row(answer, head.item.found.path)
            if head.row is None:
                return
            places.popleft()
            emit(head.item, head.row)

    def feed() -> Iterator[str]:
        for item in items:
            if stopped():
                return
            found, digest = item.found, item.sha256
            if found.error is not None:
                row = make_row(Prediction(path=found.path, status="error", error=found.error), bundle)
                places.append(_Place(item, row))
            elif digest is not None and len(places) < _WAITING and digest in waiting:
                places.append(_Place(item, None, copy=True))
            elif digest is not None and len(places) < _WAITING and (answer := known(digest)) is not None:
                places.append(_Place(item, rename_row(answer, found.path)))
            else:
                if digest is not None:
                    waiting.add(digest)
                places.append(_Place(item, None))
                begin(item)
                yield found.path
            drain()

    for prediction in cascade.predict_many(feed()):
        # Answers keep their order, and after every drain the first place is one that waits for its answer.
        place = places[0]
        place.row = make_row(prediction, bundle)
        if place.item.sha256 is not None:
            waiting.discard(place.item.sha256)
        drain()
    drain()


def content_hash(found: Found) -> str | None:
    """SHA-256 of a file's content; None when it cannot be read (classifying it says why)."""
    if found.error is not None or found.size < 0:
        return None
    try:
        with Path(found.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def hash_ahead(found: Iterable[Found]) -> Iterator[Item]:
    """Hash files on other threads, a little ahead of their use, in order."""
    pending: deque[tuple[Found, Future[str | None]]] = deque()
    with ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="hash") as pool:
        for one in found:
            pending.append((one, pool.submit(content_hash, one)))
            if len(pending) > 16 * _HASH_THREADS:
                first, digest = pending.popleft()
                yield Item(first, digest.result())
        for first, digest in pending:
            yield Item(first, digest.result())
