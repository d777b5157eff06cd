"""Reads the corrections that `cascade review --export NAME.csv` wrote: which photo shows which label."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cascade.errors import DataError
from cascade.labels import UNKNOWN

__all__ = ["CORRECTIONS_SUFFIX", "Correction", "read_corrections"]

CORRECTIONS_SUFFIX: Final = ".csv"
#: What the column `level` says of a label that is only a broader one.
_BROADER: Final = "broader"


@dataclass(frozen=True, slots=True)
class Correction:
    """What somebody said about one photo.

    Attributes:
        path: the file; it may be missing.
        label: what the photo shows.
        left_out: why it teaches nothing, in words; "" if it does.
    """

    path: Path
    label: str
    left_out: str = ""


def read_corrections(path: Path) -> list[Correction]:
    """Read a file of corrections, or any CSV file with the columns ``path`` and ``label``.

    Relative paths start in the working directory or where the file is, whichever has the photos.

    Raises:
        DataError: when the file is not there, lacks a column, or none of its photos is found.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: has no column {sorted(missing)[0]!r}; give what `cascade review RUN --export "
                    "NAME.csv` writes"
                )
            rows = [row for row in reader if _text(row["path"])]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    root = _root([_text(row["path"]) for row in rows], path)
    return [_correction(root / _text(row["path"]), row) for row in rows]


def _correction(path: Path, row: dict[str, str]) -> Correction:
    label = _text(row["label"])
    if label in ("", UNKNOWN):
        return Correction(path, label, "no label fits, as somebody said")
    if row.get("level") == _BROADER:
        return Correction(path, label, f"only the broader label {label} is known")
    return Correction(path, label)


def _root(paths: list[str], file: Path) -> Path:
    """Return the folder that relative paths start from."""
    for folder in (Path.cwd(), file.absolute().parent):
        if any((folder / path).is_file() for path in paths):
            return folder
    first = f", e.g. {paths[0]}" if paths else ""
    raise DataError(
        f"{file}: none of its {len(paths)} photos is found{first}; start the command "
        "where `cascade classify` was started"
    )


def _text(value: str | None) -> str:
    """Undo what makes a cell safe for spreadsheets; see `cascade.runs.writers.safe_for_spreadsheets`."""
    return (value or "").removeprefix("'")
