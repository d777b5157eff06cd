"""Batches across requests: order, fairness, faults, limits and stopping."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade.prediction import Prediction
from cascade.serving.batching import Batcher, QueueFullError, StoppingError


class FakeCascade:
    """Answers with the photo as the label, and notes its batches."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()
        self.go.set()

    def predict_batch(self, photos):
        self.batches.append(list(photos))
        self.go.wait(10)
        if b"poison" in photos:
            raise RuntimeError("fault")
        return [Prediction(label=photo.decode(), parent=None, confidence=1.0) for photo in photos]


@pytest.fixture
def fake():
    return FakeCascade()


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def labels(job):
    return [prediction.label for prediction in job.future.result(10)]


def test_a_lone_photo_is_not_kept_waiting(fake):
    batcher = Batcher(2)
    assert labels(batcher.submit(fake, [b"a"])) == ["a"]
    assert fake.batches == [[b"a"]]
    assert batcher.close(5)


def test_what_waits_is_taken_together_and_every_request_gets_its_own_in_order(fake):
    batcher = Batcher(1, max_batch=4)
    fake.go.clear()
    first = batcher.submit(fake, [b"first"])
    wait_until(lambda: fake.batches)
    jobs = [batcher.submit(fake, [f"{n}a".encode(), f"{n}b".encode()]) for n in range(3)]
    fake.go.set()
    assert [labels(job) for job in jobs] == [["0a", "0b"], ["1a", "1b"], ["2a", "2b"]]
    assert labels(first) == ["first"]
    assert [len(batch) for batch in fake.batches] == [1, 4, 2]


def test_workers_share_what_waits(fake):
    batcher = Batcher(2, max_batch=8)
    fake.go.clear()
    blocking = [batcher.submit(fake, [b"x"]) for _ in range(2)]
    wait_until(lambda: len(fake.batches) == 2)
    job = batcher.submit(fake, [b"1", b"2", b"3", b"4"])
    fake.go.set()
    assert labels(job) == ["1", "2", "3", "4"]
    assert max(len(batch) for batch in fake.batches) == 2
    assert all(labels(one) == ["x"] for one in blocking)


def test_photos_with_other_options_are_other_batches(fake):
    other = FakeCascade()
    batcher = Batcher(1)
    fake.go.clear()
    first = batcher.submit(fake, [b"first"])
    wait_until(lambda: fake.batches)
    jobs = [batcher.submit(cascade, [b"p"]) for cascade in (fake, other, fake)]
    fake.go.set()
    assert [labels(job) for job in (first, *jobs)] == [["first"], ["p"], ["p"], ["p"]]
    assert len(other.batches) == 1


def test_a_fault_hits_only_the_photo_that_causes_it(fake):
    batcher = Batcher(1)
    fake.go.clear()
    first = batcher.submit(fake, [b"first"])
    wait_until(lambda: fake.batches)
    good, bad, also_good = (batcher.submit(fake, [p]) for p in (b"good", b"poison", b"fine"))
    fake.go.set()
    assert labels(first) == ["first"]
    assert labels(good) == ["good"]
    assert labels(also_good) == ["fine"]
    with pytest.raises(RuntimeError, match="fault"):
        bad.future.result(10)
    assert labels(batcher.submit(fake, [b"after"])) == ["after"]


def test_a_full_queue_refuses_whole_requests_and_says_when_to_come_back(fake):
    batcher = Batcher(1, max_waiting=3)
    fake.go.clear()
    running = batcher.submit(fake, [b"running"])
    wait_until(lambda: fake.batches)
    queued = batcher.submit(fake, [b"1", b"2"])
    with pytest.raises(QueueFullError) as refused:
        batcher.submit(fake, [b"3", b"4"])
    assert refused.value.retry_seconds >= 1
    assert batcher.waiting == 2
    assert batcher.oldest_seconds > 0
    last = batcher.submit(fake, [b"3"])
    fake.go.set()
    assert [labels(job) for job in (running, queued, last)] == [["running"], ["1", "2"], ["3"]]
    assert batcher.oldest_seconds == 0


def test_what_nobody_waits_for_is_not_classified(fake):
    batcher = Batcher(1)
    fake.go.clear()
    batcher.submit(fake, [b"running"])
    wait_until(lambda: fake.batches)
    gone, stays = batcher.submit(fake, [b"gone"]), batcher.submit(fake, [b"stays"])
    gone.abandoned = True
    fake.go.set()
    assert labels(stays) == ["stays"]
    assert [b"gone"] not in fake.batches
    assert all(b"gone" not in batch for batch in fake.batches)


def test_closing_finishes_what_was_accepted(fake):
    batcher = Batcher(2, max_batch=2)
    jobs = [batcher.submit(fake, [str(n).encode()]) for n in range(50)]
    assert batcher.close(10)
    assert [labels(job) for job in jobs] == [[str(n)] for n in range(50)]
    with pytest.raises(StoppingError):
        batcher.submit(fake, [b"late"])


def test_closing_is_bounded(fake):
    batcher = Batcher(1)
    fake.go.clear()
    batcher.submit(fake, [b"stuck"])
    wait_until(lambda: fake.batches)
    assert not batcher.close(0.05)
    fake.go.set()


def test_many_threads_lose_nothing(fake):
    batcher = Batcher(4, max_batch=5, max_waiting=10_000)

    def one(n):
        photos = [f"{n}-{k}".encode() for k in range(n % 4 + 1)]
        return labels(batcher.submit(fake, photos)) == [photo.decode() for photo in photos]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(2000)))
    assert batcher.waiting == 0
