"""Writes the rows of a finished run as one parquet file, with native types and the bundle in its metadata.

A parquet file ends with its index and cannot be appended to. Rows therefore wait in the journal, and the file
is written when the run is complete, under another name first: a parquet file that is there is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from cascade.errors import OutputError, needs_extra
from cascade.runs.arrow_rows import arrow_schema, arrow_table
from cascade.runs.replacement import replacing
from cascade.runs.rows import Row

__all__ = ["ParquetWriter"]

#: Rows that are held in memory at a time, and the size of a row group.
_GROUP: Final = 10_000


class ParquetWriter:
    """Writes a whole parquet file.

    Args:
        fields: see `cascade.runs.rows.choose_fields`, and `cascade.runs.arrow_rows` for their columns.
        bundle: see `cascade.runs.rows.bundle_id`.
        sha256: of the bundle, in full.

    Raises:
        MissingExtraError: when pyarrow is not installed.
    """

    def __init__(self, fields: Sequence[str], bundle: str, sha256: str) -> None:
        with needs_extra("--format parquet", "parquet"):
            import pyarrow.parquet as pq
        self._pq = pq
        self._fields = tuple(fields)
        self._schema = arrow_schema(self._fields, bundle, sha256)

    def __call__(self, path: Path, rows: Iterator[Row]) -> None:
        """Write ``rows`` to ``path``, replacing the file of an earlier, shorter run.

        Raises:
            OutputError: when it cannot be written.
        """
        try:
            with replacing(path) as new, self._pq.ParquetWriter(new, self._schema) as writer:
                while group := list(islice(rows, _GROUP)):
                    writer.write_table(arrow_table(group, self._fields, self._schema))
        except OSError as error:
            raise OutputError.writing(path, error) from error
