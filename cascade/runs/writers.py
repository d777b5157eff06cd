"""Writing rows. In: rows (`cascade.runs.rows`). Out: text of one format, on standard output or in a file,
row by row, so that others can read along.

    table   for people: label, confidence and path, one line each
    jsonl   one JSON object a line
    csv     one line a photo, with column names first; safe to open in a spreadsheet

The fourth format, parquet, cannot be appended to; `cascade.runs.parquet` writes it when a run is complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from cascade.errors import OutputError
from cascade.imaging.files import printable
from cascade.policy import REASONS
from cascade.runs.rows import Row, columns_of, flatten

__all__ = ["FORMATS", "CsvFormat", "JsonlFormat", "RowFormat", "RowSink", "TableFormat", "make_format"]

FORMATS: Final = ("table", "jsonl", "csv", "parquet")


class RowFormat(Protocol):
    """How rows become text."""

    def header(self) -> str:
        """Return what stands before the first row."""

    def format(self, row: Row) -> str:
        """Return one row, with its line end."""


def make_format(
    name: str, fields: Sequence[str], *, explain: bool, labels: Sequence[str], bundle: str
) -> RowFormat:
    """Return the writer of a text format.

    Args:
        name: ``"table"``, ``"jsonl"`` or ``"csv"``.
        fields: see `cascade.runs.rows.choose_fields`; a table ignores it.
        explain: whether a table says how each answer came about.
        labels: every answer that can occur; a table is as wide as the longest.
        bundle: see `cascade.runs.rows.bundle_id`.
    """
    if name == "jsonl":
        return JsonlFormat(fields)
    if name == "csv":
        return CsvFormat(fields)
    return TableFormat(max(len(label) for label in (*labels, "label", "unknown")), bundle, explain=explain)


class JsonlFormat:
    """One JSON object a line, UTF-8."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = (*fields, "path_base64") if "path" in fields else tuple(fields)

    def header(self) -> str:
        """Return nothing: a line that is no row would have to be skipped by every reader."""
        return ""

    def format(self, row: Row) -> str:
        """Return one object; line ends inside of names are escaped by JSON itself."""
        return json.dumps({f: row[f] for f in self._fields if f in row}, ensure_ascii=False) + "\n"


class CsvFormat:
    """RFC 4180 with line feeds.

    A text that a spreadsheet would run as a formula (it begins with ``= + - @``, a tab or a line end) gets
    a ``'`` in front, as OWASP advises against CSV injection. A text that begins with ``'`` gets one too, so
    the rule can be undone: drop one leading ``'``.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)

    def header(self) -> str:
        """Return the line of column names."""
        return self._line(columns_of(self._fields))

    def format(self, row: Row) -> str:
        """Return one record."""
        return self._line([_csv_value(value) for value in flatten(row, self._fields).values()])

    @staticmethod
    def _line(values: Sequence[Any]) -> str:
        text = io.StringIO()
        # Only with this line end does the writer quote a lone carriage return.
        csv.writer(text, lineterminator="\r\n").writerow(values)
        return text.getvalue().removesuffix("\r\n") + "\n"


_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")


def _csv_value(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(item if isinstance(item, str) else _pair(item) for item in value)
    if isinstance(value, str) and value.lstrip(" ").startswith(_DANGEROUS):
        return "'" + value
    return value


def _pair(item: dict[str, Any]) -> str:
    """``bedroom 0.957`` of `top`, ``rooms: kitchen 0.871`` of `experts`."""
    who = f"{item['name']}: " if "name" in item else ""
    return f"{who}{item['label']} {item.get('probability', item.get('confidence')):.6f}"


class TableFormat:
    """Lines for people. What a row knows beyond label, confidence and path is shown where it matters."""

    def __init__(self, width: int, bundle: str, *, explain: bool) -> None:
        self._width = width
        self._bundle = bundle
        self._explain = explain

    def header(self) -> str:
        """Return the bundle's name and the column titles."""
        return f"# {self._bundle}\n{'label':<{self._width}}  confidence  path\n"

    def format(self, row: Row) -> str:
        """Return one line, or with ``explain`` a small paragraph."""
        path = printable(row["path"] or "-")
        if row["error"] is not None:
            error = f"{row['error']['code']}: {printable(row['error']['message'])}"
            return f"{'error':<{self._width}}  {'':>10}  {path}  [{error}]\n"
        line = f"{row['label']:<{self._width}}  {row['confidence']:>10.3f}  {path}"
        if row["warnings"]:
            line += f"  [{printable('; '.join(row['warnings']))}]"
        if not self._explain:
            return line + "\n"
        return "\n".join([line, *(f"    {text}" for text in _explanation(row))]) + "\n"


def _explanation(row: Row) -> list[str]:
    lines = []
    if row["general"]:
        lines.append(("general", f"{row['general']['label']} {row['general']['confidence']:.3f}"))
    lines += [(e["name"], f"{e['label']} {e['confidence']:.3f}") for e in row["experts"]]
    if not row["experts"]:
        lines.append(("experts", "none was asked"))
    lines.append(("answer", f"{row['reason']}: {REASONS[row['reason']]}"))
    lines.append(("top", ", ".join(f"{t['label']} {t['probability']:.3f}" for t in row["top"])))
    if row["label_set"]:
        lines.append(("one of", ", ".join(row["label_set"])))
    lines.append(("ms", ", ".join(f"{stage} {value:.1f}" for stage, value in row["ms"].items())))
    width = max(len(head) for head, _ in lines)
    return [f"{head:<{width}}  {text}" for head, text in lines]


class RowSink:
    """A file or standard output that takes whole rows.

    A row is handed to the operating system at once and with one write: readers need not wait for a buffer
    to fill. (Linux may show the beginning of a write that crosses a page for an instant, so a reader that
    follows along takes what ends with a line end.) After `sync` a row also survives a power cut, as far as
    the disk keeps its word.

    Args:
        path: a file; None is standard output.
        append: continue a file; without it the file must not exist.

    Raises:
        OutputError: when the file exists, or cannot be written.
    """

    def __init__(self, path: Path | None, *, append: bool = False) -> None:
        self.path = path
        self._descriptor = 1
        if path is None:
            return
        flags = os.O_RDWR | os.O_CREAT | (0 if append else os.O_EXCL) | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags, 0o666)
        except FileExistsError:
            raise OutputError(exists_message(path)) from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def write(self, text: str) -> None:
        """Write whole rows.

        Raises:
            OutputError: when the disk is full, or the file cannot be written for another reason.
            BrokenPipeError: when the reader of standard output is gone.
        """
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError.writing(self.path or "standard output", error) from error

    def sync(self) -> None:
        """Wait until the disk has everything."""
        if self.path is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise OutputError.writing(self.path, error) from error

    @property
    def length(self) -> int:
        """Bytes in the file so far."""
        return os.fstat(self._descriptor).st_size

    def tail_hash(self, length: int) -> str:
        """SHA-256 of the last bytes before a position: tells whether somebody else changed the file."""
        os.lseek(self._descriptor, max(0, length - _TAIL_BYTES), os.SEEK_SET)
        tail = os.read(self._descriptor, min(length, _TAIL_BYTES))
        os.lseek(self._descriptor, 0, os.SEEK_END)
        return hashlib.sha256(tail).hexdigest()

    def truncate(self, length: int) -> None:
        """Drop everything after a length in bytes."""
        os.ftruncate(self._descriptor, length)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self.path is not None:
            os.close(self._descriptor)


_TAIL_BYTES: Final = 4096


def exists_message(path: Path) -> str:
    """Say that a file is in the way, and the three ways out."""
    return (
        f"{path}: exists and is not overwritten; --resume continues an interrupted run, "
        "--restart begins again, or give another name to --output"
    )
