"""Reads the rows of a finished run back, whichever format it was written in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cascade.errors import DataError, needs_extra
from cascade.runs.rows import Row

__all__ = ["read_rows"]

#: Rows of a parquet file that are held at a time.
_GROUP: Final = 5_000


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of what ``cascade classify --output`` wrote: jsonl, json, csv or parquet.

    Columns that a csv or parquet file lacks are missing in its rows, too; ``path`` is always there. A last
    line of jsonl that is not whole yet, because the run goes on, is left out.

    Raises:
        DataError: when the file is none of them, or a row has no path.
        MissingExtraError: for parquet without pyarrow.
    """
    kind = path.suffix.lower()
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    if kind not in readers:
        raise DataError(
            f"{path}: ends with none of .jsonl, .json, .csv, .parquet; give the --output of a run"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return readers[kind](path)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: is no JSON ({error})") from None
            if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                raise DataError(f"{path}, line {number}: is no row with a path; was --fields without it?")
            yield row


def _json(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "path" in row for row in rows):
        raise DataError(f"{path}: is no list of rows with a path; was --fields without it?")
    yield from rows


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise DataError(f"{path}: has no column 'path'; was --fields without it?")
        for number, columns in enumerate(reader, 2):
            try:
                yield _row({name: _text(value or "") for name, value in columns.items() if name})
            except (ValueError, IndexError) as error:
                raise DataError(f"{path}, line {number}: {error}") from None


def _text(value: str) -> str:
    """Undo what makes a csv file safe for spreadsheets; see `cascade.runs.writers.CsvFormat`."""
    return value.removeprefix("'")


def _row(columns: dict[str, Any]) -> Row:
    """Return a row from flat columns of text; see `cascade.runs.rows.flatten`."""
    row: Row = {}
    for name, value in columns.items():
        if name in ("confidence", "scope_score", "general_confidence", "ms_total"):
            row[name] = float(value) if value else None
        elif name in ("warnings", "label_set"):
            row[name] = value.split("; ") if value else []
        elif name == "top":
            row[name] = [_scored(item) for item in value.split("; ")] if value else []
        elif name == "experts":
            row[name] = [_asked(item) for item in value.split("; ")] if value else []
        else:
            row[name] = value or None
    return _nested(row)


def _scored(text: str) -> dict[str, Any]:
    label, _, probability = text.rpartition(" ")
    return {"label": label, "probability": float(probability)}


def _asked(text: str) -> dict[str, Any]:
    name, _, rest = text.partition(": ")
    scored = _scored(rest)
    return {"name": name, "label": scored["label"], "confidence": scored["probability"]}


def _nested(row: Row) -> Row:
    """Put back together what `flatten` took apart."""
    if "error_code" in row:
        code, message = row.pop("error_code"), row.pop("error_message", None)
        row["error"] = {"code": code, "message": message or ""} if code else None
    if "general_label" in row:
        label, confidence = row.pop("general_label"), row.pop("general_confidence", None)
        row["general"] = {"label": label, "confidence": confidence} if label else None
    if "ms_total" in row:
        total = row.pop("ms_total")
        row["ms"] = {} if total is None else {"total": total}
    return row


def _parquet(path: Path) -> Iterator[Row]:
    with needs_extra(f"reading {path.name}", "parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(path) as file:
            if "path" not in file.schema_arrow.names:
                raise DataError(f"{path}: has no column 'path'; was --fields without it?")
            for batch in file.iter_batches(batch_size=_GROUP):
                for columns in batch.to_pylist():
                    yield _nested(columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet ({error})") from error
