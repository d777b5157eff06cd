"""Measures speed and memory as folders grow, and the time of one photo; prints a table or JSON.

    python benchmarks/scaling.py [--sizes 100 1000 10000] [--rounds 5] [--json FILE]

    growth         photos per second of a warm `predict_many` over 100, 1,000 and 10,000 photos; short runs
                   are repeated, and medians compared (target: within 10 %)
    first result   seconds until `cascade classify FOLDER` has written its first row, process start included,
                   for the smallest and the largest folder (target: 1 s)
    memory         peak resident memory of `cascade classify` with 1 and with 8 workers, for the two smaller
                   sizes (target: flat)
    latency        milliseconds of a warm `Cascade.predict` of one 1-megapixel photo, p50 and p95 (target: p95
                   at most twice p50)

Growth and memory are measured on thumbnails, where the work per photo that could grow is not hidden behind
decoding; folders larger than the number of different photos repeat them (as links).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from footprint import peak_mb
from photo_mixes import default_photos, make_mix, sources

from cascade import Cascade

ROOT = Path(__file__).resolve().parent.parent
WORKERS = (1, 8)


def growth(cascade: Cascade, paths: Sequence[Path], sizes: Sequence[int], rounds: int) -> dict[int, float]:
    """Return size -> photos per second, median; a small size is run as often as fits into a large one."""
    list(cascade.predict_many(paths[:32]))
    speeds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            for _ in range(max(1, min(5, max(sizes) // size))):
                started = time.perf_counter()
                count = sum(1 for _ in cascade.predict_many(islice(cycle(paths), size)))
                speeds[size].append(count / (time.perf_counter() - started))
    return {size: statistics.median(values) for size, values in speeds.items()}


def command(folder: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "cascade",
        "classify",
        str(folder),
        "--format",
        "jsonl",
        "-q",
        *options,
    ]


def fill(folder: Path, paths: Sequence[Path], size: int) -> Path:
    folder.mkdir(parents=True)
    for number, path in enumerate(islice(cycle(paths), size)):
        (folder / f"{number:06d}.jpg").hardlink_to(path)
    return folder


def first_result(folder: Path, rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        process = subprocess.Popen(command(folder), stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert process.stdout.readline()
        seconds.append(time.perf_counter() - started)
        process.kill()
        process.communicate()
    return statistics.median(seconds)


def latency(cascade: Cascade, paths: Sequence[Path], rounds: int) -> dict[str, float]:
    milliseconds = []
    for path in paths[:10]:
        cascade.predict(path)
    for _ in range(rounds):
        for path in paths:
            started = time.perf_counter()
            cascade.predict(path)
            milliseconds.append((time.perf_counter() - started) * 1e3)
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "ratio": round(float(p95 / p50), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=default_photos(), help="the labelled photographs")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "cascade-mixes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes, rounds = sorted(arguments.sizes), arguments.rounds
    photographs = sources(arguments.photos)
    thumbnails = make_mix("thumbnail", min(500, sizes[-1]), photographs, arguments.scratch / "thumbnail-500")
    web = make_mix("web", 100, photographs, arguments.scratch / "web-100")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folders = {size: fill(Path(scratch) / str(size), thumbnails, size) for size in sizes}
        # Before this process loads a classifier: the peak of a child begins with that of its parent.
        results["memory_mb"] = {
            workers: {
                size: peak_mb(command(folders[size], "--workers", str(workers)), cwd=ROOT)[0]
                for size in sizes[:2]
            }
            for workers in WORKERS
        }
        results["first_result"] = {
            size: first_result(folders[size], rounds) for size in (sizes[0], sizes[-1])
        }
    cascade = Cascade()
    results["growth"] = growth(cascade, thumbnails, sizes, rounds)
    results["latency"] = latency(cascade, web, rounds)
    for size, speed in results["growth"].items():
        ratio = speed / results["growth"][sizes[0]]
        print(f"growth         {size:6d} photos  {speed:7.1f} photos/s  {ratio:.2f} of the smallest")
    for size, seconds in results["first_result"].items():
        print(f"first result   {size:6d} photos  {seconds:.2f} s (at most 1 s)")
    for workers, found in results["memory_mb"].items():
        print(
            f"memory         {workers} workers   "
            + ", ".join(f"{s} photos: {m:.0f} MB" for s, m in found.items())
        )
    one = results["latency"]
    print(f"latency        p50 {one['p50_ms']} ms, p95 {one['p95_ms']} ms, ratio {one['ratio']} (at most 2)")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
