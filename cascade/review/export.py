"""Writes what people said about a run: a CSV file, or photos in folders named after their labels."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cascade.errors import OutputError
from cascade.labels import UNKNOWN
from cascade.review.run_index import RunIndex
from cascade.runs.rows import Row
from cascade.runs.sorting import sort_photos
from cascade.runs.writers import safe_for_spreadsheets

__all__ = ["COLUMNS", "csv_lines", "export", "export_folders"]

#: `label` is what the photo shows, `previous` what the run answered, `level` whether the label is one of the
#: bundle's ("label"), a broader one ("broader") or none ("unknown").
COLUMNS = ("path", "label", "previous", "confidence", "kind", "reviewer", "time", "level")


def csv_lines(index: RunIndex) -> Iterator[str]:
    """Yield the lines of the CSV file: every photo that somebody has said something about, by path."""
    yield _line(COLUMNS)
    for path, entry in sorted(index.log.states().items()):
        number = index.id_of(path)
        confidence = "" if number is None else f"{index.confidence[number]:.6f}"
        level = _level(index, entry.label)
        values = (
            path,
            entry.label,
            entry.previous,
            confidence,
            entry.kind,
            entry.reviewer,
            entry.time,
            level,
        )
        yield _line([safe_for_spreadsheets(value) for value in values])


def _level(index: RunIndex, label: str | None) -> str:
    if label in index.tree.parent_of:
        return "label"
    return "unknown" if label == UNKNOWN else "broader"


def _line(values: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)  # type: ignore[arg-type]
    return text.getvalue()


def export_folders(index: RunIndex, target: Path, mode: str = "link") -> Counter[str]:
    """Put reviewed photos into TARGET/LABEL, as `cascade evaluate`, `calibrate` and `train` take them.

    Photos for which no label fits, or which were only given a broader label, are left out; the CSV file has
    them.

    Args:
        index: the run.
        target: the folder.
        mode: see `cascade.runs.sorting.sort_photos`.

    Returns:
        Counts: ``sorted``, ``missing``, ``no label fits``, ``broader label only``.

    Raises:
        OutputError: when a folder or file cannot be written, or the folder is not empty: it could hold photos
            of an older export that are corrected now.
    """
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for path, entry in sorted(index.log.states().items()):
        number = index.id_of(path)
        if number is None:
            continue
        if entry.label in index.tree.parent_of:
            rows.append({"path": index.file_of(number), "label": entry.label})
        else:
            left_out["no label fits" if entry.label == UNKNOWN else "broader label only"] += 1
    if target.exists() and any(target.iterdir()):
        raise OutputError(f"{target}: is not empty; an export needs a new folder")
    _, counts = sort_photos(rows, target, mode)
    return counts + left_out


def export(index: RunIndex, target: Path) -> str:
    """Write a CSV file if the name ends with .csv, else folders, and return what was done in words.

    Raises:
        OutputError: when it is there already or cannot be written.
    """
    if target.suffix.lower() != ".csv":
        counts = export_folders(index, target)
        return f"{target}: " + (
            ", ".join(f"{what} {n:,}" for what, n in sorted(counts.items())) or "nothing yet"
        )
    try:
        with target.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(csv_lines(index))
    except FileExistsError:
        raise OutputError(f"{target}: exists already; give another name") from None
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    return f"{target}: {len(index.log.states()):,} photos"
