"""`cascade.cluster.partition`: one row for every row, the schema of `classify`, whatever the photos are."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

from cascade import Cascade
from cascade.classifier import Cascade as Opened
from cascade.errors import BundleError, UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")

from cascade.cluster import PartitionOptions, classify_partition, partition_schema
from cascade.cluster.partition import open_worker


@pytest.fixture
def options(tiny_bundle):
    return PartitionOptions(bundle=str(tiny_bundle))


def test_the_rows_and_the_schema_are_those_of_classify(photo, run_cli, options, tmp_path):
    paths = [
        str(photo(f"in/{n:02}.jpg", colour)) for n, colour in enumerate(["beach", "menu", "kitchen"] * 9)
    ]
    (tmp_path / "in" / "zz.jpg").write_bytes(b"no image")
    paths.append(str(tmp_path / "in" / "zz.jpg"))
    assert run_cli("classify", tmp_path / "in", "-o", tmp_path / "rows.parquet").code == 1
    wanted = pq.read_table(tmp_path / "rows.parquet")
    got = classify_partition(pa.table({"path": paths}), options)
    assert got.schema.equals(wanted.schema, check_metadata=True)
    assert got.sort_by("path").to_pylist() == wanted.sort_by("path").to_pylist()
    assert partition_schema(options).equals(got.schema)


@pytest.mark.parametrize("explain", [True, False])
def test_bytes_paths_and_urls_give_the_same_answers(photo, options, explain):
    path = photo("a.png", "forest")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/archive/a.png", path.read_bytes())
    rows = pa.table(
        {
            "path": [str(path), "memory://archive/a.png", "any name", f"file://{path}"],
            "bytes": [None, None, path.read_bytes(), None],
        }
    )
    told = PartitionOptions(bundle=options.bundle, explain=explain)
    answers = classify_partition(rows, told).to_pylist()
    assert [row["path"] for row in answers] == rows["path"].to_pylist()
    assert {row["label"] for row in answers} == {"forest"}
    assert len({str({**row, "path": 0, "ms_total": 0}) for row in answers}) == 1


def test_rows_that_hold_no_photo_are_errors_and_keep_their_places(photo, options, tmp_path):
    good = str(photo("a.jpg", "beach"))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/empty.jpg", b"")
    rows = pa.table(
        {
            "path": [good, "memory://gone.jpg", None, "memory://empty.jpg", str(tmp_path), "x.jpg", good],
            "bytes": pa.array([None, None, None, None, None, b"GIF8", None], pa.binary()),
        }
    )
    answers = classify_partition(rows, options)
    codes = ["not_found", "not_found", "empty", "is_directory"]
    assert answers["error_code"].to_pylist()[:5] == [None, *codes]
    assert answers["label"].to_pylist() == ["beach", None, None, None, None, None, "beach"]
    assert answers["path"].to_pylist() == rows["path"].to_pylist()


def test_a_batch_gives_a_batch_and_no_rows_give_no_rows(photo, options):
    batch = pa.RecordBatch.from_pylist([{"path": str(photo())}])
    answer = classify_partition(batch, options)
    assert isinstance(answer, pa.RecordBatch)
    assert answer.schema.equals(partition_schema(options))
    assert (answer.num_rows, classify_partition(batch.slice(0, 0), options).num_rows) == (1, 0)
    assert classify_partition(pa.table({"path": pa.array([], pa.string())}), options).num_rows == 0


def test_a_name_that_is_not_utf8_arrives_as_bytes(photo, options):
    if sys.platform != "linux":
        pytest.skip("file names are UTF-8 here")
    name = photo("x.jpg", "menu")
    path = os.fsencode(name.parent) + b"/\xff.jpg"
    name.rename(os.fsdecode(path))
    (row,) = classify_partition(pa.table({"path": pa.array([path], pa.binary())}), options).to_pylist()
    assert (row["label"], row["path"][-8:]) == ("menu", "\\xff.jpg")


def test_columns_may_have_other_names_and_wrong_ones_are_named(photo, options):
    path = photo("a.png", "menu")
    other = PartitionOptions(bundle=options.bundle, path_column="url", bytes_column="image")
    assert classify_partition(pa.table({"url": [str(path)]}), other)["label"].to_pylist() == ["menu"]
    only = pa.table({"image": [path.read_bytes()], "id": [7]})
    assert classify_partition(only, other).select(["path", "label"]).to_pylist() == [
        {"path": None, "label": "menu"}
    ]
    with pytest.raises(UsageError, match=r"no column 'path'.*but image, id; name the columns"):
        classify_partition(only, options)
    with pytest.raises(UsageError, match="'bytes' holds int64, not the bytes of image files"):
        classify_partition(pa.table({"bytes": [1]}), options)
    with pytest.raises(UsageError, match="cannot hold both"):
        PartitionOptions(path_column="bytes")


def test_the_bundle_is_opened_once_and_never_pickled(photo, options, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "cascade.cluster.partition.Cascade", lambda *a, **k: opened.append(k["workers"]) or Cascade(*a, **k)
    )
    mine = PartitionOptions(bundle=options.bundle, top_k=3)
    for _ in range(3):
        classify_partition(pa.table({"path": [str(photo())]}), mine)
    assert opened == [1]
    worker = open_worker(mine)
    assert len(pickle.dumps(worker)) < 1000
    assert pickle.loads(pickle.dumps(worker)) is worker


def test_another_bundle_than_the_one_of_the_run_is_refused(options):
    with pytest.raises(BundleError, match=r"the run was begun with 0123456789ab; give every worker"):
        open_worker(PartitionOptions(bundle=options.bundle, bundle_sha256="0123456789ab" + "0" * 52))


def test_an_exception_nobody_foresaw_is_the_row_of_its_photo(photo, options, monkeypatch):
    good, bad = photo("good.jpg", "beach"), photo("bad.jpg", "menu")
    real = Opened.predict_batch

    def predict_batch(self, images):
        if str(bad) in map(str, images):
            raise ArithmeticError("odd")
        return real(self, images)

    monkeypatch.setattr(Opened, "predict_batch", predict_batch)
    rows = classify_partition(pa.table({"path": [str(good), str(bad), str(good)]}), options).to_pylist()
    assert [row["label"] for row in rows] == ["beach", None, "beach"]
    assert rows[1]["error_message"] == "reading it failed with ArithmeticError: odd"

    def broken(self, images):
        raise ArithmeticError("always")

    monkeypatch.setattr(Opened, "predict_batch", broken)
    with pytest.raises(ArithmeticError, match="always"):
        classify_partition(pa.table({"path": [str(good)]}), options)


def test_one_thread_computes(photo, options):
    """Other threads of the process, should there be any, do not run the graphs."""
    code = """
import sys, threading
import pyarrow as pa
from cascade.cluster import PartitionOptions, classify_partition
from cascade.inference.session import GraphSession
from cascade.onnx_runtime import ort
seen, threads, run = set(), set(), GraphSession.run
make = ort.SessionOptions
def spy(self, feeds):
    seen.add(threading.get_ident())
    threads.add(self._session.get_session_options().intra_op_num_threads)
    return run(self, feeds)
GraphSession.run = spy
classify_partition(pa.table({"path": sys.argv[2:] * 40}), PartitionOptions(bundle=sys.argv[1]))
assert seen == {threading.get_ident()} and threads == {1}, (seen, threads)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, options.bundle, str(photo())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
