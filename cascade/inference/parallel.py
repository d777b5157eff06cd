"""Runs a function on batches of a stream in several threads and gives the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["map_batches"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_batches(
    function: Callable[[Sequence[Item]], Result], items: Iterable[Item], *, workers: int, batch_size: int
) -> Iterator[Result]:
    """Yield ``function(batch)`` for consecutive batches, in order, while the stream is still read.

    Batches grow from one item to ``batch_size``, so that the first result comes at once. At most about
    ``3 * workers * batch_size`` items are held at a time, however long the stream is.

    Args:
        function: called in ``workers`` threads; what it raises is raised here.
        items: any number of them.
        workers: threads.
        batch_size: the largest batch.
    """
    stream = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cascade")
    pending: deque[Future[Result]] = deque()
    try:
        size = 1
        while batch := list(islice(stream, size)):
            pending.append(pool.submit(function, batch))
            size = min(size * 2, batch_size)
            while len(pending) > 2 * workers or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
