"""`cascade.runs.parquet`: native types, the bundle in the metadata, whole or not there."""

from __future__ import annotations

import sys

import pytest

from cascade import ErrorInfo, Opinion, Prediction
from cascade.errors import MissingExtraError
from cascade.runs.parquet import ParquetWriter
from cascade.runs.rows import FIELDS, make_row

pq = pytest.importorskip("pyarrow.parquet")

GOOD = Prediction(
    path="a.jpg",
    label="kitchen",
    parent="indoor",
    confidence=0.75,
    reason="leaf",
    top=(("kitchen", 0.75), ("bedroom", 0.25)),
    general=Opinion("general", "bedroom", 0.5),
    experts=(Opinion("rooms", "kitchen", 0.9),),
    ms={"total": 2.5},
)
BAD = Prediction(path="x\udcff.jpg", status="error", error=ErrorInfo("empty", "no bytes"))


def test_types_and_values(tmp_path):
    path = tmp_path / "rows.parquet"
    ParquetWriter(FIELDS, "tiny 1 sha256:00", "00" * 32)(
        path, iter([make_row(GOOD, "b"), make_row(BAD, "b")])
    )
    good, bad = pq.read_table(path).to_pylist()
    assert (good["label"], good["confidence"], good["schema"], good["ms_total"]) == ("kitchen", 0.75, 1, 2.5)
    assert good["top"][1] == {"label": "bedroom", "probability": 0.25}
    assert good["experts"] == [{"name": "rooms", "label": "kitchen", "confidence": 0.9}]
    assert good["general_label"] == "bedroom"
    assert (bad["path"], bad["error_code"], bad["label"], bad["warnings"]) == (
        "x\\xff.jpg",
        "empty",
        None,
        [],
    )
    metadata = pq.read_schema(path).metadata
    assert metadata[b"cascade.schema"] == b"1"
    assert metadata[b"cascade.bundle"] == b"tiny 1 sha256:00"
    assert metadata[b"cascade.bundle_sha256"] == b"00" * 32


def test_fields_and_many_rows(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = (make_row(GOOD, "b") | {"path": f"{n}.jpg"} for n in range(10_001))
    ParquetWriter(["path", "label"], "b", "0")(path, rows)
    file = pq.ParquetFile(path)
    assert file.schema_arrow.names == ["path", "label"]
    assert (file.num_row_groups, file.metadata.num_rows) == (2, 10_001)


def test_no_rows_is_an_empty_table(tmp_path):
    path = tmp_path / "rows.parquet"
    ParquetWriter(FIELDS, "b", "0")(path, iter([]))
    assert pq.read_table(path).num_rows == 0


def test_interrupted_it_is_not_there(tmp_path):
    path = tmp_path / "rows.parquet"

    def interrupted():
        yield make_row(GOOD, "b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ParquetWriter(FIELDS, "b", "0")(path, interrupted())
    assert not path.exists()


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"cascade-vision\[parquet\]"):
        ParquetWriter(FIELDS, "b", "0")
