"""`cascade.cluster.part`: one file a part, and what keeps a worker from writing to the wrong place."""

from __future__ import annotations

import dataclasses
import os
import signal
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
            "the run was begun with 000000000000",
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
