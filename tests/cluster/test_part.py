"""`cascade.cluster.part`: one file a part, and what keeps a worker from writing to the wrong place."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("fsspec")

from cascade.cluster import PartitionOptions
from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.part import STOP_FILE, PartTask, classify_part
from cascade.cluster.plan import Plan
from cascade.cluster.run_folder import begin
from cascade.errors import BundleError, OutputError, UsageError
from cascade.imaging.files import Found
from cascade.prediction import ErrorInfo


@pytest.fixture
def task(photo, tmp_path, tiny_bundle):
    folder = OutputFolder(str(tmp_path / "rows"))
    with begin(folder, {}, resume=False, restart=False):
        pass
    found = [Found(str(photo(f"{n}.png", "menu"))) for n in range(5)]
    found.append(Found("locked", error=ErrorInfo("not_permitted", "this folder may not be entered")))
    Plan(folder).extend(found, size=6, left_out=dict, stopped=lambda: False)
    options = PartitionOptions(bundle=str(tiny_bundle))
    return PartTask(folder=folder.url, options=options, home=str(Path.cwd()), run="one")


def test_a_part_is_done_once(task, monkeypatch):
    counts = classify_part(task, 0)
    assert (counts["photos"], counts["labels"], counts["errors"]) == (6, {"menu": 5}, {"not_permitted": 1})
    assert counts["pid"] == os.getpid()
    monkeypatch.setattr("cascade.cluster.part.open_worker", None)
    assert classify_part(task, 0) == counts
    assert list(Path(task.folder, "_cascade", "begun").iterdir()) == []


def test_nothing_is_begun_when_the_run_is_to_end(task):
    OutputFolder(task.folder).write(STOP_FILE, b"")
    assert classify_part(task, 0) == {"part": 0, "stopped": True}


def test_a_worker_that_differs_from_the_driver_says_so(task, tmp_path):
    cases = [
        ({"version": "9.9"}, UsageError, "the run was started with 9.9; install the same version"),
        ({"home": str(tmp_path / "gone")}, UsageError, "has no folder .*gone, where the photos"),
        ({"folder": str(tmp_path / "local only")}, OutputError, "does not see the output of this run"),
        (
            {"options": dataclasses.replace(task.options, bundle_sha256="0" * 64)},
            BundleError,
            f"worker {socket.gethostname()}: .*the run was begun with 000000000000",
        ),
        (
            {"options": dataclasses.replace(task.options, bundle=str(tmp_path / "mine"))},
            BundleError,
            f"mine: this worker, {socket.gethostname()}, has no bundle there; copy the bundle to the same",
        ),
    ]
    for change, error, text in cases:
        with pytest.raises(error, match=text):
            classify_part(dataclasses.replace(task, **change), 0)


@pytest.mark.skipif(os.name == "nt", reason="a process is killed here as on Unix")
def test_a_photo_that_kills_the_worker_three_times_becomes_a_row(task, tmp_path):
    """Each try is a process of its own, as an engine would start it."""
    code = """
import os, pickle, signal, sys
from cascade.classifier import Cascade
from cascade.cluster.part import classify_part
real = Cascade.predict_batch
def deadly(self, images):
    if any(str(one).endswith("2.png") for one in images):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, images)
Cascade.predict_batch = deadly
classify_part(pickle.load(open(sys.argv[1], "rb")), 0)
"""
    import pickle

    given = tmp_path / "task.pickle"
    given.write_bytes(pickle.dumps(task))
    codes = []
    while not codes or (codes[-1] != 0 and len(codes) < 8):
        ran = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, check=False)
        codes.append(ran.returncode)
    # Once together with the others, three times alone, and then it is passed over.
    assert codes == [-signal.SIGKILL] * 4 + [0], ran.stderr
    rows = pq.read_table(task.folder).to_pylist()
    assert [row["error_code"] for row in rows] == [None, None, "killed", None, None, "not_permitted"]


def test_what_another_start_of_the_command_left_blames_no_photo(task):
    folder = OutputFolder(task.folder)
    folder.write("_cascade/begun/000000.json", b'{"run": "before", "position": 1, "deaths": {"1": 9}}')
    assert classify_part(task, 0)["errors"] == {"not_permitted": 1}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is in /proc")
def test_memory_does_not_grow_with_the_number_of_parts(task, photo, tmp_path):
    """In a process of its own, whose memory is that of the parts.

    What Python holds is counted exactly. What C libraries hold shows in the memory of the process: a photo of
    12 MB decoded that stayed behind would show with every part.
    """
    code = """
import gc, pickle, sys, threading, tracemalloc
import pyarrow as pa
from cascade.cluster.part import classify_part
task, warm, parts = pickle.load(open(sys.argv[1], "rb")), int(sys.argv[2]), int(sys.argv[3])
def held():
    gc.collect()
    return tracemalloc.get_traced_memory()[0], pa.total_allocated_bytes(), threading.active_count()
tracemalloc.start()
for number in range(parts):
    told = classify_part(task, number)
    if number == warm:  # what is loaded once is there
        before, rss = held(), told["rss_mb"]
print(*(b - a for a, b in zip(before, held())), told["rss_mb"] - rss)
"""
    import pickle

    folder, warm, parts, size = OutputFolder(task.folder), 6, 26, 5
    large = str(photo("large.png", "menu", (2400, 1700)))
    plan = Plan(folder)
    plan.clear()
    found = (Found(f"file://{large}" if n % 2 else large) for n in range(parts * size))
    plan.extend(found, size=size, left_out=dict, stopped=lambda: False)
    given = tmp_path / "task.pickle"
    given.write_bytes(pickle.dumps(task))
    ran = subprocess.run(
        [sys.executable, "-c", code, given, str(warm), str(parts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    python, arrow, threads, process = map(float, ran.stdout.split())
    assert (arrow, threads) == (0, 0)
    # Of 19 parts. Caches that fill are 20,000 bytes; one row that stayed behind with each would be 70,000.
    assert python < 45_000, "bytes"
    # Less than 1 if nothing stays behind; a decoded photo with every part would be 300.
    assert process < 60, "MB"
