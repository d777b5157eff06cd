"""Runs a function on batches of a stream in several threads and gives the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["MOST_BYTES", "map_batches"]

#: Bytes of items that are held at a time; a batch of one item is always possible.
MOST_BYTES: Final = 512 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_batches(
    function: Callable[[Sequence[Item]], Result],
    items: Iterable[Item],
    *,
    workers: int,
    batch_size: int,
    bytes_of: Callable[[Item], int] = lambda item: 0,
) -> Iterator[Result]:
    """Yield ``function(batch)`` for consecutive batches, in order, while the stream is still read.

    Batches grow from one item to ``batch_size``, so that the first result comes at once. At most about
    ``3 * workers * batch_size`` items are held at a time, however long the stream is, and fewer when they
    take more than `MOST_BYTES`.

    Args:
        function: called in ``workers`` threads; what it raises is raised here.
        items: any number of them.
        workers: threads.
        batch_size: the largest batch.
        bytes_of: returns how much memory an item takes.
    """
    from concurrent.futures import ThreadPoolExecutor  # not at the top: one photo alone needs no threads

    stream = iter(items)
    share = MOST_BYTES // (2 * workers + 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cascade")
    pending: deque[Future[Result]] = deque()
    try:
        size = 1
        while batch := _take(stream, size, bytes_of, share):
            pending.append(pool.submit(function, batch))
            size = min(size * 2, batch_size)
            while len(pending) > 2 * workers or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _take(stream: Iterator[Item], most: int, bytes_of: Callable[[Item], int], most_bytes: int) -> list[Item]:
    """Return the next items: at most so many, and none after they take so many bytes."""
    batch, held = [], 0
    for item in islice(stream, most):
        batch.append(item)
        held += bytes_of(item)
        if held >= most_bytes:
            break
    return batch
