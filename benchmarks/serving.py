"""What the service gives of `predict_many`, and how long clients wait.

    python benchmarks/serving.py PHOTOS [--clients 16] [--count 400] [--rounds 3]

Starts `cascade serve` on this machine, sends the photos over HTTP from clients in one other process, and
compares, in turns, with `Cascade.predict_many` on the same bytes in this process. Clients take their share of
the same cores.

Two loads are measured: clients that ask again as soon as they are answered (throughput), and requests that
come at random at half of that rate (latency). With C clients that never pause, the mean time is C divided by
the throughput (Little's law), whatever the service does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from cascade import Cascade
from cascade.imaging.files import find_photos

HEADERS = {"Content-Type": "application/octet-stream"}


def start(log: Path) -> tuple[subprocess.Popen[bytes], str]:
    with log.open("wb") as file:
        command = [sys.executable, "-m", "cascade", "serve", "--port", "0", "--queue", "1024"]
        process = subprocess.Popen(command, stderr=file)
    while not (found := re.search(r"serving on (http://\S+);", log.read_text())):
        time.sleep(0.05)
    while httpx.get(found[1] + "/v2/health/ready").status_code != 200:
        time.sleep(0.2)
    return process, found[1]


async def ask(client: httpx.AsyncClient, photo: bytes, seconds: list[float]) -> None:
    started = time.perf_counter()
    answer = await client.post("/v1/classify", content=photo, headers=HEADERS)
    assert answer.status_code in (200, 422), answer.text
    seconds.append(time.perf_counter() - started)


async def closed(url: str, photos: list[bytes], clients: int) -> tuple[float, list[float]]:
    """Clients that never pause: photos per second, and seconds per request."""
    waiting, seconds = iter(photos), []
    async with httpx.AsyncClient(
        base_url=url, timeout=120, limits=httpx.Limits(max_connections=clients)
    ) as client:

        async def one() -> None:
            for photo in waiting:
                await ask(client, photo, seconds)

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return len(photos) / (time.perf_counter() - started), seconds


async def opened(url: str, photos: list[bytes], rate: float) -> list[float]:
    """Requests that come at random, ``rate`` a second."""
    draw, seconds, tasks = random.Random(1), [], []
    async with httpx.AsyncClient(
        base_url=url, timeout=120, limits=httpx.Limits(max_connections=256)
    ) as client:
        for photo in photos:
            tasks.append(asyncio.create_task(ask(client, photo, seconds)))
            await asyncio.sleep(draw.expovariate(rate))
        await asyncio.gather(*tasks)
    return seconds


def client_process(url: str, mode: str, value: float, paths: list[str]) -> dict[str, object]:
    """Run a load in another process, so that its interpreter is not ours."""
    code = (
        "import sys, json, asyncio; sys.path.insert(0, sys.argv[1]); import serving; "
        "a = json.load(sys.stdin); photos = [open(p, 'rb').read() for p in a['paths']]; "
        "r = asyncio.run(getattr(serving, a['mode'])(a['url'], photos, a['value'])); "
        "print(json.dumps(r))"
    )
    given = json.dumps({"url": url, "mode": mode, "value": value, "paths": paths})
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = [photo.path for photo in find_photos([str(options.photos)])]
    random.Random(0).shuffle(found)
    paths = (found * (options.count // len(found) + 1))[: options.count]
    contents = [Path(path).read_bytes() for path in paths]
    cascade = Cascade()
    list(cascade.predict_many(contents[:50]))
    with tempfile.TemporaryDirectory() as home:
        process, url = start(Path(home) / "log")
        client_process(url, "closed", options.clients, paths[:50])
        _, idle = client_process(url, "closed", 1, paths[:100])
        library, service, busy = [], [], []
        for _ in range(options.rounds):
            started = time.perf_counter()
            for _ in cascade.predict_many(contents):
                pass
            library.append(len(contents) / (time.perf_counter() - started))
            rate, seconds = client_process(url, "closed", options.clients, paths)
            service.append(rate)
            busy += seconds
        half = client_process(url, "opened", statistics.median(service) / 2, paths)
        process.terminate()
        process.wait()
    share = statistics.median(s / p for s, p in zip(service, library, strict=True))
    p50, never, often = statistics.median(idle), quantile(busy, 0.99), quantile(half, 0.99)
    print(f"{options.count} photos, {options.clients} clients, {options.rounds} rounds in turns")
    print(f"share of predict_many: {share:.2f}")
    print(f"p99 over the idle p50, {options.clients} clients that never pause: {never / p50:.1f}")
    print(f"p99 over the idle p50, requests at random at half of that rate: {often / p50:.1f}")


if __name__ == "__main__":
    main()
