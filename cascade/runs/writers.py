"""Turns rows into text of one format and writes them, row by row, so that others can read along.

    table   for people: label, confidence and path, one line each
    jsonl   one JSON object a line
    json    one JSON array; in a file when a run is complete
    csv     one line a photo, with column names first; safe to open in a spreadsheet

The fifth format, parquet, cannot be appended to either; see `cascade.runs.parquet`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from cascade.errors import OutputError
from cascade.imaging.files import printable
from cascade.policy import REASONS
from cascade.runs.replacement import replacing
from cascade.runs.rows import Row, columns_of, flatten

__all__ = [
    "FORMATS",
    "CsvFormat",
    "JsonFormat",
    "JsonlFormat",
    "RowFormat",
    "TableFormat",
    "make_format",
    "safe_for_spreadsheets",
    "write_json",
]

FORMATS: Final = ("table", "jsonl", "json", "csv", "parquet")


class RowFormat(Protocol):
    """How rows become text."""

    def header(self) -> str:
        """Return what stands before the first row."""

    def format(self, row: Row) -> str:
        """Return one row, with its line end."""

    def footer(self) -> str:
        """Return what stands after the last row."""


def make_format(
    name: str, fields: Sequence[str], *, explain: bool, labels: Sequence[str], bundle: str
) -> RowFormat:
    """Return the writer of a text format.

    Args:
        name: ``"table"``, ``"jsonl"``, ``"json"`` or ``"csv"``.
        fields: see `cascade.runs.rows.choose_fields`; a table ignores it.
        explain: whether a table says how each answer came about.
        labels: every answer that can occur; a table is as wide as the longest.
        bundle: see `cascade.runs.rows.bundle_id`.
    """
    if name == "jsonl":
        return JsonlFormat(fields)
    if name == "json":
        return JsonFormat(fields)
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

    def footer(self) -> str:
        """Return nothing: a file without an end can be continued."""
        return ""


class JsonFormat:
    """One JSON array of objects, one line each. A file needs its end, so `write_json` writes it whole."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._lines = JsonlFormat(fields)
        self._first = True

    def header(self) -> str:
        """Return the opening bracket."""
        return "[\n"

    def format(self, row: Row) -> str:
        """Return one object, and before it what parts it from the last one."""
        between, self._first = "" if self._first else ",\n", False
        return between + self._lines.format(row).removesuffix("\n")

    def footer(self) -> str:
        """Return the closing bracket."""
        return ("" if self._first else "\n") + "]\n"


def write_json(fields: Sequence[str], path: Path, rows: Iterator[Row]) -> None:
    """Write a JSON file with every row of a run; it appears when it is complete.

    Args:
        fields: see `cascade.runs.rows.choose_fields`.
        path: the file; one that is there is replaced.
        rows: of the whole run.

    Raises:
        OutputError: when it cannot be written.
    """
    form = JsonFormat(fields)
    try:
        with (
            replacing(path) as new,
            new.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
        ):
            file.write(form.header())
            for row in rows:
                file.write(form.format(row))
            file.write(form.footer())
    except OSError as error:
        raise OutputError.writing(path, error) from error


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

    def footer(self) -> str:
        """Return nothing: a file without an end can be continued."""
        return ""

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
    return safe_for_spreadsheets(value)


def safe_for_spreadsheets(value: Any) -> Any:
    """Return a value of a csv file that no spreadsheet runs as a formula; see `CsvFormat`."""
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

    def footer(self) -> str:
        """Return nothing: a file without an end can be continued."""
        return ""


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
