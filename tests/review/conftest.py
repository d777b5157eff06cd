"""A finished run, and the review page on it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, INDOOR_COLOUR, UNKNOWN_COLOUR
from PIL import Image


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """answers.jsonl of 40 photos, one of which cannot be read. Not to be changed; copy its folder."""
    home = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(3)
    colours = [COLOURS[name][1] for name in COLOURS] + [INDOOR_COLOUR, UNKNOWN_COLOUR]
    for number in range(39):
        rgb = np.clip(np.array(colours[number % 7]) + random.normal(0, 8, 3), 0, 255).astype(int)
        (home / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (300, 200), tuple(rgb.tolist())).save(home / "photos" / f"{number:02}.png")
    (home / "photos" / "bad.png").write_bytes(b"no photo")
    arguments = ["classify", "photos", "-o", "answers.jsonl", "--bundle", str(tiny_bundle), "-q"]
    result = subprocess.run([sys.executable, "-m", "cascade", *arguments], cwd=home, timeout=120)
    assert result.returncode == 1  # the one that cannot be read
    return home / "answers.jsonl"


@pytest.fixture
def run_copy(run_file: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write beside."""
    return shutil.copytree(run_file.parent, tmp_path / "run") / run_file.name


@dataclass
class Review:
    """A review page that was started."""

    process: subprocess.Popen[bytes]
    url: str

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0


@pytest.fixture
def start_review(tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[..., Review]]:
    """Start `cascade review` on a run."""
    pytest.importorskip("starlette", reason="the page needs: pip install 'cascade-vision[serve]'")
    started: list[Review] = []

    def begin(run: Path, *arguments: str) -> Review:
        log = tmp_path / f"review-{len(started)}.log"
        command = [sys.executable, "-m", "cascade", "review", run.name, "--bundle", str(tiny_bundle)]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--port", "0", "--no-open", *arguments],
                cwd=run.parent,
                stderr=file,
                env=dict(os.environ),
            )
        end = time.monotonic() + 60
        while not (found := re.search(r"on (http://\S+)/#review;", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        started.append(Review(process, found[1]))
        return started[-1]

    yield begin
    for review in started:
        if review.process.poll() is None:
            review.process.kill()
            review.process.wait(30)
