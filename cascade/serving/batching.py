"""Gathers the photos of many requests into batches and runs them on one thread per core.

A worker that is free takes what waits, at once: nothing ever waits for a batch to fill. Batches therefore
grow with the load by themselves, and a single photo on an idle service is a batch of one.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from cascade.classifier import Cascade
from cascade.imaging.decoding import ImageSource
from cascade.prediction import Prediction

__all__ = ["Batcher", "Job", "QueueFullError", "StoppingError"]

#: Weight of the newest batch in the running mean of seconds per photo.
_NEWEST: Final = 0.1
_LONGEST_RETRY_SECONDS: Final = 60


class QueueFullError(Exception):
    """So many photos wait that more are refused.

    Attributes:
        retry_seconds: after which about as many will have been answered as wait now.
    """

    def __init__(self, waiting: int, retry_seconds: int) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(f"{waiting} photos are waiting already; try again in {retry_seconds} s")


class StoppingError(Exception):
    """The service is being stopped and takes no more work."""


@dataclass(eq=False, slots=True)
class Job:
    """The photos of one request.

    Attributes:
        cascade: what classifies them; only photos with the same one share a batch.
        photos: what `Cascade.predict` takes.
        future: gets one `Prediction` for each photo, in order.
        abandoned: set when nobody waits for the answer any more; what has not begun is then left out.
    """

    cascade: Cascade
    photos: Sequence[ImageSource]
    future: Future[list[Prediction]] = field(default_factory=Future)
    abandoned: bool = False
    since: float = field(default_factory=time.monotonic)
    _answers: dict[int, Prediction] = field(default_factory=dict)

    def answer(self, position: int, prediction: Prediction) -> None:
        """Note one answer; with the last one the future is done. Called under the batcher's lock."""
        self._answers[position] = prediction
        if len(self._answers) == len(self.photos) and not self.future.done():
            self.future.set_result([self._answers[n] for n in range(len(self.photos))])

    def fail(self, error: BaseException) -> None:
        """Give up: a fault, no property of a photo."""
        if not (self.future.done() or self.abandoned):
            self.future.set_exception(error)
        self.abandoned = True


class Batcher:
    """Threads that classify what is submitted.

    Args:
        workers: threads; one per core uses them all.
        max_batch: photos that a thread takes at once.
        max_waiting: photos that may wait.
        on_batch: called in a worker's thread after every batch with its predictions and its seconds.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_batch: int = 8,
        max_waiting: int = 256,
        on_batch: Callable[[Sequence[Prediction], float], None] = lambda predictions, seconds: None,
    ) -> None:
        self._max_batch, self._max_waiting, self._on_batch = max_batch, max_waiting, on_batch
        self._waiting: deque[tuple[Job, int]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_per_photo = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"classify-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Photos that no worker has taken yet."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest of them has waited; 0 if none waits."""
        with self._changed:
            return time.monotonic() - self._waiting[0][0].since if self._waiting else 0.0

    def check_room(self, photos: int = 1) -> None:
        """Raise what `submit` would raise now for so many photos."""
        if self._closing:
            raise StoppingError
        if len(self._waiting) + photos > self._max_waiting:
            seconds = len(self._waiting) * self._seconds_per_photo / len(self._threads)
            raise QueueFullError(len(self._waiting), min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS))

    def submit(self, cascade: Cascade, photos: Sequence[ImageSource]) -> Job:
        """Queue the photos of one request.

        Args:
            cascade: classifies them.
            photos: at least one.

        Raises:
            QueueFullError: when they would be more than may wait; none of them is queued then.
            StoppingError: after `close`.
        """
        job = Job(cascade, photos)
        with self._changed:
            self.check_room(len(photos))
            self._waiting.extend((job, position) for position in range(len(photos)))
            self._changed.notify(min(len(photos), len(self._threads)))
        return job

    def close(self, seconds: float) -> bool:
        """Take no more work, finish what is queued, and return whether that was done in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while batch := self._take():
            started = time.perf_counter()
            cascade = batch[0][0].cascade
            try:
                answers = cascade.predict_batch([job.photos[position] for job, position in batch])
            except Exception:
                self._one_by_one(batch)
                continue
            seconds = time.perf_counter() - started
            with self._changed:
                share = seconds / len(batch)
                self._seconds_per_photo += (share - self._seconds_per_photo) * _NEWEST
                for (job, position), prediction in zip(batch, answers, strict=True):
                    job.answer(position, prediction)
            self._on_batch(answers, seconds)

    def _take(self) -> list[tuple[Job, int]]:
        """Wait for photos and return the next ones to classify together; empty when there is no more work."""
        with self._changed:
            while True:
                while self._waiting and self._waiting[0][0].abandoned:
                    self._waiting.popleft()
                if self._waiting:
                    break
                if self._closing:
                    return []
                self._changed.wait()
            # An equal share for every worker: all cores are busy even when few photos wait.
            size = min(self._max_batch, math.ceil(len(self._waiting) / len(self._threads)))
            batch = [self._waiting.popleft()]
            while len(batch) < size and self._waiting and self._waiting[0][0].cascade is batch[0][0].cascade:
                item = self._waiting.popleft()
                if not item[0].abandoned:
                    batch.append(item)
            if self._waiting:
                self._changed.notify()
            return batch

    def _one_by_one(self, batch: Sequence[tuple[Job, int]]) -> None:
        """After a fault, find the photo that caused it, so that the others are answered."""
        for job, position in batch:
            try:
                answers = job.cascade.predict_batch([job.photos[position]])
            except Exception as error:
                job.fail(error)
                continue
            with self._changed:
                job.answer(position, answers[0])
            self._on_batch(answers, 0.0)
