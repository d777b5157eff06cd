"""A running service, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the service needs: pip install 'cascade-vision[serve]'")
httpx = pytest.importorskip("httpx")


@dataclass
class Running:
    """A service that was started."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.is_file():
            pytest.skip("memory is read from /proc")
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
        assert found
        return int(found[1]) / 1000

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def start(folder: Path, bundle: Path, *arguments: str, ready: bool = True, **environment: str) -> Running:
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cascade", "serve", "--bundle", str(bundle), "--port", "0", *arguments],
            stderr=file,
            stdout=file,
            env={**os.environ, **environment},
        )
    end = time.monotonic() + 60
    while not (found := re.search(r"serving on (http://\S+);", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    running = Running(process, found[1], log)
    while ready and httpx.get(running.url + "/v2/health/ready").status_code != 200:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Running]:
    """One service for every test that leaves it as it was."""
    running = start(tmp_path_factory.mktemp("server"), tiny_bundle)
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def start_server(tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[..., Running]]:
    """Start services of a test's own."""
    started: list[Running] = []

    def begin(*arguments: str, **more: object) -> Running:
        started.append(start(tmp_path, tiny_bundle, *arguments, **more))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(30)


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened
