"""What folder runs survive, hold and save.

    python benchmarks/folder_runs.py kills [--kills 30] [--photos 3000]
    python benchmarks/folder_runs.py memory [--photos 100000]
    python benchmarks/folder_runs.py duplicates [--photos 2000] [--share 0.3]

`kills` ends runs of every output format with SIGKILL at random moments, continues each with --resume until
it is done, and compares the rows with those of a run that nobody disturbed. `memory` classifies thumbnails
and reads the resident memory of the process as it goes. `duplicates` times the same folder with and without
--by-content, in turn.

All take [--bundle DIR] (default: the shipped one) and make their photos in a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cascade.cli.main import main as cascade_main

SUFFIXES = {"jsonl": "jsonl", "csv": "csv", "table": "txt", "parquet": "parquet"}


@dataclass(frozen=True)
class Survived:
    """What became of the rows of a run that was killed again and again."""

    kills: int
    begun_anew: int
    rows: int
    lost: int
    doubled: int
    different: int


def make_photos(folder: Path, count: int, *, size: tuple[int, int] = (64, 48), copies: float = 0.0) -> Path:
    """Write `count` JPEGs of which the share `copies` repeats an earlier one, 1000 to a folder."""
    generator = np.random.default_rng(0)
    kinds = []
    for _ in range(64):
        blurred = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size)
        data = io.BytesIO()
        blurred.save(data, "JPEG", quality=80)
        kinds.append(data.getvalue())
    earlier: list[bytes] = []
    for number in range(count):
        if earlier and generator.random() < copies:
            content = earlier[int(generator.integers(len(earlier)))]
        else:
            # Bytes after the end of a JPEG are no part of the picture, but make the file another one.
            content = kinds[number % len(kinds)] + number.to_bytes(8, "big")
            if copies:
                earlier.append(content)
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def survive_kills(
    folder: Path, work: Path, *, kind: str, kills: int, bundle: Path | None, seed: int
) -> Survived:
    """Kill runs over a folder until `kills` of them died at work, let the last one finish, compare."""
    # A fork server has imported everything, so that a run is at work some milliseconds after its start.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cascade", "cascade.cli.classify", "cascade.runs.parquet"])
    common = ["classify", str(folder), "--quiet", *(["--bundle", str(bundle)] if bundle else [])]
    calm, killed = work / f"calm.{SUFFIXES[kind]}", work / f"killed.{SUFFIXES[kind]}"

    def start(output: Path, *options: str) -> Any:
        process = context.Process(target=cascade_main, args=([*common, "-o", str(output), *options],))
        process.start()
        return process

    begun = time.monotonic()
    process = start(calm)
    process.join()
    assert process.exitcode == 0, process.exitcode
    seconds = time.monotonic() - begun
    moments = random.Random(seed)
    died = begun_anew = 0
    while died < kills:
        process = start(killed, "--resume")
        process.join(moments.uniform(0.0, seconds / 3))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            died += 1
        elif died < kills:  # it was done too early: begin again, so that the rest of the kills hit work
            killed.with_name(killed.name + ".state").unlink()
            killed.unlink()
            begun_anew += 1
    process = start(killed, "--resume")
    process.join()
    assert process.exitcode == 0, process.exitcode
    return compare(read_rows(calm, kind), read_rows(killed, kind), died, begun_anew)


def compare(calm: list[Any], killed: list[Any], kills: int, begun_anew: int) -> Survived:
    """Compare rows, also their order: the path is the last word of a row's first element."""
    expected, found = Counter(path for path, _ in calm), Counter(path for path, _ in killed)
    doubled = sum(number - 1 for number in found.values() if number > 1)
    different = sum(a != b for a, b in zip(calm, killed, strict=False))
    return Survived(kills, begun_anew, len(killed), len(expected - found), doubled, different)


def read_rows(path: Path, kind: str) -> list[tuple[str, Any]]:
    """Return (path, everything else that does not depend on the clock) of every row."""
    if kind == "parquet":
        import pyarrow.parquet as pq

        return [(row["path"], row) for row in pq.read_table(path).to_pylist()]
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n"), "the last row is not whole"
    if kind == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        return [(row["path"], row | {"ms": None}) for row in rows]
    lines = text.splitlines()[1 if kind == "csv" else 2 :]  # what stands before the first row
    return [(line.split(",")[0].split()[-1], line) for line in lines]


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory(folder: Path, work: Path, bundle: Path | None, count: int) -> None:
    output = work / "rows.jsonl"
    command = [sys.executable, "-m", "cascade", "classify", str(folder), "-o", str(output), "-q"]
    begun = time.monotonic()
    process = subprocess.Popen([*command, *(["--bundle", str(bundle)] if bundle else [])])
    samples: list[tuple[int, float]] = []  # bytes written, MB
    while process.poll() is None:
        time.sleep(0.25)
        try:
            samples.append((output.stat().st_size, resident_mb(process.pid)))
        except (OSError, ProcessLookupError):
            continue
    seconds = time.monotonic() - begun
    with output.open(encoding="utf-8") as file:
        rows = sum(1 for _ in file)
    size = output.stat().st_size
    print(f"{rows:,} rows of {count:,} in {seconds:.0f} s, exit code {process.returncode}")
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        near = min(samples, key=lambda sample: abs(sample[0] - share * size))
        print(f"after {share:4.0%} of the rows: {near[1]:6.0f} MB resident")
    print(f"most at any time: {max(mb for _, mb in samples):.0f} MB")


def duplicates(folder: Path, work: Path, bundle: Path | None, count: int, repeats: int = 3) -> None:
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for repeat in range(repeats):
        for name, options in (("without", []), ("with", ["--by-content"])):
            output = work / f"{name}-{repeat}.jsonl"
            command = [
                sys.executable,
                "-m",
                "cascade",
                "classify",
                str(folder),
                "-o",
                str(output),
                "-q",
            ]
            begun = time.monotonic()
            subprocess.run([*command, *options, *(["--bundle", str(bundle)] if bundle else [])], check=True)
            seconds[name].append(time.monotonic() - begun)
    for name, times in seconds.items():
        print(f"{name:>7} --by-content: {count / min(times):7.1f} photos/s (best of {repeats})")
    print(f"ratio: {min(seconds['without']) / min(seconds['with']):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kills", "memory", "duplicates"])
    parser.add_argument("--photos", type=int, help="how many")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.3, help="of the photos that are copies")
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if given.what == "kills":
            folder = make_photos(work / "photos", given.photos or 3000)
            for kind in SUFFIXES:
                result = survive_kills(
                    folder, work, kind=kind, kills=given.kills, bundle=given.bundle, seed=1
                )
                print(f"{kind:>7}: {result}", flush=True)
        elif given.what == "memory":
            count = given.photos or 100_000
            memory(make_photos(work / "photos", count), work, given.bundle, count)
        else:
            count = given.photos or 2000
            folder = make_photos(work / "photos", count, size=(1600, 1200), copies=given.share)
            duplicates(folder, work, given.bundle, count)


if __name__ == "__main__":
    main()
