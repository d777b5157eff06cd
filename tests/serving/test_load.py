"""Overload, clients that leave, and a stop in the middle: every accepted request is answered, memory is flat.

The small run is part of every test run, the large one runs with ``pytest -m load``."""

from __future__ import annotations

import io
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from conftest import COLOURS
from PIL import Image

HEADERS = {"Content-Type": "image/png"}


def noisy(label: str, side: int) -> bytes:
    """A photo whose mean colour is that of a label, and which takes a while to decode."""
    rgb = np.array(COLOURS[label][1])
    pixels = np.random.default_rng(side).integers(-20, 10, (side, side, 3)) + rgb
    data = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


PHOTOS = {label: noisy(label, 300) for label in ("forest", "beach", "menu")}


def ask(client: httpx.Client, number: int, outcomes: Counter[str]) -> None:
    label = list(PHOTOS)[number % len(PHOTOS)]
    try:
        answer = client.post("/v1/classify", content=PHOTOS[label], headers=HEADERS)
    except httpx.TransportError as error:
        outcomes[f"no answer: {type(error).__name__}"] += 1
        return
    if answer.status_code == 200:
        outcomes["right" if answer.json()["label"] == label else "wrong"] += 1
    else:
        outcomes[str(answer.status_code)] += 1
        assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1


def vanish(url: str, count: int) -> None:
    """Clients that send a photo, whole or half, and leave without reading the answer."""
    host, port = url.removeprefix("http://").split(":")
    body = PHOTOS["menu"]
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n".encode()
    for number in range(count):
        with socket.create_connection((host, int(port)), timeout=20) as gone:
            gone.sendall(head + (body if number % 2 else body[: len(body) // 2]))


def load(running, requests: int, clients: int, leaving: int) -> tuple[Counter[str], list[float]]:
    outcomes: Counter[str] = Counter()
    memory = []
    with running.client(limits=httpx.Limits(max_connections=clients)) as client:
        leavers = threading.Thread(target=vanish, args=(running.url, leaving))
        leavers.start()
        with ThreadPoolExecutor(clients) as pool:
            for part in range(10):
                numbers = range(part * requests // 10, (part + 1) * requests // 10)
                list(pool.map(lambda number: ask(client, number, outcomes), numbers))
                memory.append(running.memory_mb())
        leavers.join()
        text = client.get("/metrics").text
    assert "cascade_queue_photos 0.0" in text
    assert "cascade_held_body_bytes 0.0" in text
    return outcomes, memory


def test_small_load(start_server):
    running = start_server("--queue", "64", "--workers", "2")
    outcomes, _ = load(running, 300, 16, 20)
    assert outcomes == {"right": 300}


def test_overload_is_refused_and_nothing_accepted_is_lost(start_server):
    running = start_server("--queue", "4", "--max-photos", "4", "--workers", "1")
    outcomes, _ = load(running, 300, 24, 20)
    assert set(outcomes) == {"right", "429"}, outcomes
    assert sum(outcomes.values()) == 300
    assert running.stop() == 0


@pytest.mark.parametrize("after", [0.3, 0.8])
def test_a_stop_in_the_middle_answers_what_was_accepted(start_server, after):
    running = start_server("--workers", "1")
    outcomes: Counter[str] = Counter()
    stopped = threading.Event()

    def keep_asking(seed: int) -> None:
        number = seed
        with running.client() as client:
            while not stopped.is_set():
                number += 1
                try:
                    answer = client.post("/v1/classify", content=PHOTOS["forest"], headers=HEADERS)
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    outcomes["refused"] += 1  # not accepted any more
                    return
                outcomes[str(answer.status_code)] += 1

    threads = [threading.Thread(target=keep_asking, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(after)
    code = running.stop()
    stopped.set()
    for thread in threads:
        thread.join(30)
    log = running.log.read_text()
    assert code == 0, log
    assert outcomes["200"] > 0
    assert set(outcomes) <= {"200", "503", "refused"}, outcomes
    assert "Traceback" not in log
    assert "cascade: stopped" in log


def test_accepted_work_is_finished_before_the_end(start_server):
    """Requests that are in the queue when the signal comes are all answered."""
    running = start_server("--workers", "1", "--queue", "200")
    answers: list[int] = []
    files = [("photo", (f"{n}.png", PHOTOS["forest"])) for n in range(20)]

    def send() -> None:
        with running.client() as client:
            answers.append(len(client.post("/v1/classify", files=files).json()))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    with running.client() as client:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            queued = client.get("/metrics").text.split("\ncascade_queue_photos ")[1].split()[0]
            if float(queued) >= 40:
                break
    assert running.stop() == 0
    for thread in threads:
        thread.join(30)
    # A request whose body was still on its way may have been refused; one that was queued may not.
    assert answers.count(20) >= 3


@pytest.mark.load
def test_some_thousand_requests_leave_memory_flat(start_server):
    running = start_server("--queue", "64", "--workers", "2")
    load(running, 500, 16, 50)
    outcomes, memory = load(running, 5000, 16, 500)
    assert set(outcomes) <= {"right", "429"}, outcomes
    assert sum(outcomes.values()) == 5000
    assert max(memory) < min(memory) + 25, memory


@pytest.mark.load
def test_hostile_bodies(start_server):
    running = start_server("--max-pixels", "1000000", "--max-body-mb", "2", "--body-seconds", "2")
    bomb = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(bomb, "PNG")
    draw = random.Random(5)
    bodies = [bomb.getvalue(), b"", b"\0" * 1_000_000, b"\xff\xd8\xff" + b"\xff" * 10_000]
    for _ in range(500):
        damaged = bytearray(PHOTOS["beach"])
        for _ in range(draw.randrange(1, 30)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        bodies.append(bytes(damaged[: draw.randrange(1, len(damaged))]))
    with running.client() as client:
        before = running.memory_mb()
        statuses = Counter(
            client.post("/v1/classify", content=body, headers=HEADERS).status_code for body in bodies
        )
        assert set(statuses) <= {200, 422}, statuses
        assert running.memory_mb() < before + 60
        assert client.post("/v1/classify", content=PHOTOS["menu"], headers=HEADERS).status_code == 200
