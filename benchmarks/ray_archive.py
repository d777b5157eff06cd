"""What runs on a Ray cluster survive, hold and cost, on two nodes of this machine.

    python benchmarks/ray_archive.py kills PHOTOS [--photos 20000] [--part-size 500]
    python benchmarks/ray_archive.py speed PHOTOS [--photos 20000] [--part-size 500]
    python benchmarks/ray_archive.py store [--objects 2000]

`kills` classifies an archive with a corrupt photo in every part, ends a worker with SIGKILL when 30 % of the
parts are finished and the command itself at 60 %, goes on with --resume, and compares the rows with those of
one machine. It prints the memory of every worker as the run went. Exit code 1 if a row was lost, doubled or
other, or a finished part was done again. `speed` times the same archive with `cascade classify` and with two
workers, in turns. `store` reads, lists and writes objects of an S3 server on this machine and prints the
processor time that the client needs for each: what comes on top of the network.

The archive is made of the photos below PHOTOS, repeated. All take [--bundle DIR] (default: the shipped one).
Needs: pip install 'cascade-vision[ray]' 'moto[server]'
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 150 << 20, "include_dashboard": False}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("kills", "speed"):
        command = commands.add_parser(name)
        command.add_argument("source", type=Path, metavar="PHOTOS")
        command.add_argument("--photos", type=int, default=20_000)
        command.add_argument("--part-size", type=int, default=500)
        command.add_argument("--bundle", type=Path)
        command.add_argument("--turns", type=int, default=2)
    commands.add_parser("store").add_argument("--objects", type=int, default=2000)
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    with tempfile.TemporaryDirectory(prefix="ray-archive-") as scratch:
        if given.command == "store":
            return store(given.objects)
        home = Path(scratch)
        make_archive(given.source, home / "archive", given.photos, given.part_size)
        return (kills if given.command == "kills" else speed)(home, given)


def make_archive(source: Path, target: Path, count: int, part_size: int) -> None:
    """Link `count` photos, repeating those of `source`; one in every part is no image."""
    photos = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".webp"))
    if not photos:
        sys.exit(f"{source}: holds no photos")
    target.mkdir()
    for number in range(count):
        photo = photos[number % len(photos)]
        path = target / f"{number:06d}{photo.suffix.lower()}"
        if number % part_size == part_size // 2:
            path.write_bytes(b"this is no image")
            continue
        try:
            path.hardlink_to(photo)
        except OSError:  # another file system
            shutil.copy(photo, path)


@contextlib.contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with a core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def classify(given: argparse.Namespace, *arguments: Any) -> subprocess.Popen[bytes]:
    bundle = [] if given.bundle is None else ["--bundle", given.bundle]
    told = [sys.executable, "-m", "cascade", "classify", *arguments, *bundle]
    return subprocess.Popen([str(one) for one in told])


def on_ray(
    given: argparse.Namespace, home: Path, rows: Path, address: str, *more: str
) -> subprocess.Popen[bytes]:
    size = str(given.part_size)
    engine = ["--engine", "ray", "--ray-address", address, "--part-size", size]
    return classify(given, home / "archive", *engine, "--output", rows, *more)


def parts_in(rows: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in rows.glob("part-*.parquet")}


def workers() -> list[int]:
    """Numbers of the processes of this cluster that classify parts; nobody else's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if "_PartWorker" in path.read_text() and is_below_us(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


def is_below_us(process: int) -> bool:
    while process > 1 and process != os.getpid():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


def wait_for(rows: Path, share: float, parts: int, process: subprocess.Popen[bytes]) -> None:
    while len(parts_in(rows)) < share * parts:
        if process.poll() is not None:
            sys.exit("the run ended before it could be killed; give more --photos")
        time.sleep(0.05)


def kills(home: Path, given: argparse.Namespace) -> int:
    parts = -(-given.photos // given.part_size)
    print(f"{given.photos:,} photos in {parts} parts; one machine first", flush=True)
    classify(given, home / "archive", "--output", home / "one.parquet").wait()
    rows = home / "rows"
    with two_nodes() as address:
        run = on_ray(given, home, rows, address)
        wait_for(rows, 0.3, parts, run)
        victim = workers()[0]
        os.kill(victim, signal.SIGKILL)
        print(f"worker {victim} killed with {len(parts_in(rows))} of {parts} parts finished", flush=True)
        wait_for(rows, 0.6, parts, run)
        run.kill()
        run.wait()
        while workers():  # Ray ends the workers of a driver that is gone
            time.sleep(0.1)
        done = parts_in(rows)
        print(f"command killed with {len(done)} of {parts} parts finished", flush=True)
        code = on_ray(given, home, rows, address, "--resume").wait()
    return judge(home, rows, done, parts, code)


def judge(home: Path, rows: Path, done: dict[str, int], parts: int, code: int) -> int:
    import pyarrow.parquet as pq

    after = parts_in(rows)
    redone = sum(after.get(name) != changed for name, changed in done.items())
    wanted = {row["path"]: row for row in pq.read_table(home / "one.parquet").to_pylist()}
    found = pq.read_table(rows).to_pylist()
    times = Counter(row["path"] for row in found)
    lost = len(wanted.keys() - times.keys())
    doubled = sum(number > 1 for number in times.values())
    different = sum(row != wanted.get(row["path"]) for row in found)
    errors = sum(row["status"] == "error" for row in found)
    print(f"rows {len(found):,}; lost {lost}, doubled {doubled}, different {different}; errors {errors}")
    print(f"parts {len(after)} of {parts}; finished before the kill and done again: {redone}")
    if code <= 1:
        show_memory(rows)
    good = (lost, doubled, different, redone) == (0, 0, 0, 0) and (errors, len(after), code) == (
        parts,
        parts,
        1,
    )
    print("as it should be" if good else "NOT as it should be")
    return 0 if good else 1


def show_memory(rows: Path) -> None:
    """Print the memory of every worker after each of its parts, MB, at most ten figures."""
    lines = (rows / "_cascade" / "manifest.jsonl").read_text().splitlines()
    counts = sorted(map(json.loads, lines), key=lambda one: (rows / one["file"]).stat().st_mtime_ns)
    for process in dict.fromkeys(one["pid"] for one in counts):
        series = [one["rss_mb"] for one in counts if one["pid"] == process]
        shown = series[:: max(1, len(series) // 10)]
        print(f"worker {process}, {len(series)} parts, MB: " + ", ".join(f"{value:.0f}" for value in shown))


def speed(home: Path, given: argparse.Namespace) -> int:
    ratios, steady = [], []
    with two_nodes() as address:
        for turn in range(given.turns):
            started = time.perf_counter()
            one = home / f"one-{turn}.parquet"
            classify(given, home / "archive", "--workers", "2", "--quiet", "--output", one).wait()
            alone = given.photos / (time.perf_counter() - started)
            started = time.perf_counter()
            rows = home / f"rows-{turn}"
            on_ray(given, home, rows, address, "--quiet").wait()
            whole = given.photos / (time.perf_counter() - started)
            written = sorted(parts_in(rows).values())
            # From the first finished part of each worker on: without the start of Ray and of the workers.
            between = (len(written) - 2) * given.part_size / ((written[-1] - written[1]) / 1e9)
            ratios.append(whole / alone)
            steady.append(between / alone)
            print(
                f"one machine {alone:.1f} photos/s; two workers of Ray {whole:.1f} ({ratios[-1]:.0%}), "
                f"without their start {between:.1f} ({steady[-1]:.0%})",
                flush=True,
            )
    print(f"median: {statistics.median(ratios):.0%}, without the start {statistics.median(steady):.0%}")
    return 0


def store(objects: int) -> int:
    """Print what a request costs the client."""
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '5987'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ |= {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5987",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        import s3fs

        from cascade.imaging.files import FindOptions
        from cascade.storage.fetching import ahead, read_url
        from cascade.storage.sources import photos_of

        files = s3fs.S3FileSystem()
        for _ in range(100):
            with contextlib.suppress(OSError):
                files.mkdir("archive")
                break
            time.sleep(0.2)
        content = os.urandom(100_000)
        with costs("PUT of 100 kB", objects):
            for number in range(objects):
                files.pipe_file(f"archive/{number:06d}.jpg", content)
        with costs("names listed, 1,000 a request", objects):
            urls = [found.path for found in photos_of(["s3://archive"], FindOptions())]
        with costs("GET of 100 kB, eight at a time", objects):
            assert sum(len(one) for one in ahead(read_url, urls, threads=8, most=16)) == objects * len(
                content
            )
    finally:
        server.kill()
    return 0


@contextlib.contextmanager
def costs(what: str, times: int) -> Iterator[None]:
    started, used = time.perf_counter(), time.process_time()
    yield
    used, started = time.process_time() - used, time.perf_counter() - started
    print(f"{what}: {used / times * 1e3:.3f} ms of processor time each ({times / started:.0f} a second here)")


if __name__ == "__main__":
    sys.exit(main())
