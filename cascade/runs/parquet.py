"""Writes the rows of a finished run as one parquet file, with native types and the bundle in its metadata.

A parquet file ends with its index and cannot be appended to. Rows therefore wait in the journal, and the file
is written when the run is complete, under another name first: a parquet file that is there is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cascade.errors import MissingExtraError, OutputError
from cascade.runs.replacement import replacing
from cascade.runs.rows import ROW_SCHEMA_VERSION, Row, columns_of, flatten

__all__ = ["ParquetWriter"]

#: Rows that are held in memory at a time, and the size of a row group.
_GROUP: Final = 10_000


class ParquetWriter:
    """Writes a whole parquet file.

    Columns are those of CSV; `top` and `experts` are lists of structures, `warnings` and `label_set` lists of
    strings.

    Args:
        fields: see `cascade.runs.rows.choose_fields`.
        bundle: see `cascade.runs.rows.bundle_id`.
        sha256: of the bundle, in full.

    Raises:
        MissingExtraError: when pyarrow is not installed.
    """

    def __init__(self, fields: Sequence[str], bundle: str, sha256: str) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            raise MissingExtraError("--format parquet", "parquet") from error
        self._pq, self._pa = pq, pa
        self._fields = tuple(fields)
        scored = [("label", pa.string()), ("probability", pa.float64())]
        asked = [("name", pa.string()), ("label", pa.string()), ("confidence", pa.float64())]
        types: dict[str, Any] = {
            "warnings": pa.list_(pa.string()),
            "confidence": pa.float64(),
            "top": pa.list_(pa.struct(scored)),
            "label_set": pa.list_(pa.string()),
            "general_confidence": pa.float64(),
            "experts": pa.list_(pa.struct(asked)),
            "scope_score": pa.float64(),
            "ms_total": pa.float64(),
            "schema": pa.int64(),
        }
        self._schema = pa.schema(
            [(column, types.get(column, pa.string())) for column in columns_of(self._fields)],
            metadata={
                "cascade.schema": str(ROW_SCHEMA_VERSION),
                "cascade.bundle": bundle,
                "cascade.bundle_sha256": sha256,
            },
        )

    def __call__(self, path: Path, rows: Iterator[Row]) -> None:
        """Write ``rows`` to ``path``, replacing the file of an earlier, shorter run.

        Raises:
            OutputError: when it cannot be written.
        """
        try:
            with replacing(path) as new, self._pq.ParquetWriter(new, self._schema) as writer:
                while group := list(islice(rows, _GROUP)):
                    flat = [flatten(row, self._fields) for row in group]
                    writer.write_table(self._pa.Table.from_pylist(flat, schema=self._schema))
        except OSError as error:
            raise OutputError.writing(path, error) from error
