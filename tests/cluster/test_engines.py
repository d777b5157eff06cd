"""`cascade.spark`, `cascade.daft`, `cascade.dask`: each engine runs, and gives what a partition gives."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")

import cascade
from cascade.cluster import PartitionOptions, classify_partition

# Engines warn about each other's versions, and leave their sockets to the end of the process.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def paths(photo, tmp_path, tiny_bundle, monkeypatch):
    """Photos in five colours, one that is broken, and one that is missing; worker processes find cascade."""
    monkeypatch.setenv("PYTHONPATH", str(Path(cascade.__file__).parents[1]))
    labels = ("bedroom", "kitchen", "beach", "forest", "menu")
    found = [
        str(photo(f"{number:02d}.jpg", labels[number % 5], size=(16 + number, 16))) for number in range(10)
    ]
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    return [*found, str(tmp_path / "broken.jpg"), str(tmp_path / "none.jpg")]


@pytest.fixture
def options(tiny_bundle):
    return PartitionOptions(bundle=str(tiny_bundle), operating_point="default")


def same(got, paths, options):
    """Whether a table has the rows of `classify_partition`, whatever their order and exact types."""
    expected = classify_partition(pa.table({"path": paths}), options)
    assert got.column_names == expected.column_names
    assert sorted(got.to_pylist(), key=repr) == sorted(expected.to_pylist(), key=repr)
    assert sorted(filter(None, got["error_code"].to_pylist())) == ["not_an_image", "not_found"]


def test_spark(paths, options, monkeypatch):
    sql = pytest.importorskip("pyspark.sql", reason="needs Spark: pip install 'cascade-vision[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    from cascade.spark import classify

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "4",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # a short life
    }
    session = sql.SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    try:
        rows = session.createDataFrame([(path, 1) for path in paths], "path string, other int").repartition(2)
        same(classify(rows, options).toArrow(), paths, options)
    finally:
        session.stop()


def test_daft(paths, options):
    daft = pytest.importorskip("daft", reason="needs Daft: pip install 'cascade-vision[daft]'")
    from cascade.daft import classify

    rows = daft.from_pydict({"path": paths, "other": list(range(len(paths)))})
    same(classify(rows, options, processes=2).to_arrow(), paths, options)
    contents = [Path(path).read_bytes() for path in paths[:5]]
    named = daft.from_pydict({"path": ["x"] * 5, "bytes": contents})
    assert classify(named, options, processes=1).to_arrow()["label"].to_pylist() == [
        "bedroom", "kitchen", "beach", "forest", "menu",
    ]  # fmt: skip


def test_dask(paths, options):
    frames = pytest.importorskip("dask.dataframe", reason="needs Dask: pip install 'cascade-vision[dask]'")
    pandas = pytest.importorskip("pandas")
    from cascade.dask import classify

    rows = frames.from_pandas(pandas.DataFrame({"path": paths, "other": range(len(paths))}), npartitions=3)
    answered = classify(rows, options)
    same(pa.Table.from_pandas(answered.compute(), preserve_index=False), paths, options)
    assert list(answered.columns)[:3] == ["path", "status", "error_code"]
    in_processes = answered.compute(scheduler="processes", num_workers=2)
    same(pa.Table.from_pandas(in_processes, preserve_index=False), paths, options)
