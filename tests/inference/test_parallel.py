"""Batches are worked on side by side, and nobody can tell from the results."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence

import pytest

from cascade.inference.parallel import map_batches


@pytest.mark.parametrize(("workers", "size"), [(1, 1), (2, 3), (4, 16)])
def test_results_come_in_order_and_nothing_is_lost(workers: int, size: int) -> None:
    def slow_at_first(batch: Sequence[int]) -> list[int]:
        time.sleep(0.02 if 0 in batch else 0)
        return list(batch)

    results = list(map_batches(slow_at_first, range(50), workers=workers, batch_size=size))
    assert list(itertools.chain(*results)) == list(range(50))
    assert max(map(len, results)) <= size
    assert len(results[0]) == 1


def test_a_stream_is_read_only_as_far_as_it_is_needed() -> None:
    taken = itertools.count()
    results = map_batches(list, taken, workers=2, batch_size=4)
    assert next(results) == [0]
    assert next(taken) < 3 * 2 * 4 + 4
    results.close()


def test_what_is_raised_in_a_thread_is_raised_here_and_threads_end() -> None:
    def fail(batch: Sequence[int]) -> None:
        raise ValueError(f"cannot do {batch[0]}")

    before = threading.active_count()
    with pytest.raises(ValueError, match="cannot do 0"):
        list(map_batches(fail, range(9), workers=2, batch_size=2))
    assert threading.active_count() == before
