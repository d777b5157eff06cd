"""Reads which folder names stand for which labels, as `--label-map` gives them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cascade.errors import UsageError

__all__ = ["parse_label_map"]


def parse_label_map(values: Iterable[str]) -> dict[str, str]:
    """Return folder name -> label.

    Args:
        values: each ``FOLDER=LABEL``, or the path of a text file with one such pair in a line; empty lines
            and lines that begin with # are left out.

    Raises:
        UsageError: when a pair is none, a file cannot be read, or a folder is given two labels.
    """
    found: dict[str, str] = {}
    for value in values:
        for where, pair in [(f"--label-map {value}", value)] if "=" in value else _pairs_of_file(value):
            folder, separator, label = (part.strip() for part in pair.partition("="))
            if not (folder and separator and label):
                raise UsageError(f"{where}: {pair!r} is not FOLDER=LABEL, e.g. livingroom=living_room")
            if found.setdefault(folder, label) != label:
                raise UsageError(f"{where}: {folder!r} is mapped to {found[folder]!r} already; choose one")
    return found


def _pairs_of_file(name: str) -> list[tuple[str, str]]:
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--label-map {name}: is neither FOLDER=LABEL nor a text file of such lines ({error})"
        ) from error
    numbered = [(f"{name}, line {number}", line.strip()) for number, line in enumerate(lines, 1)]
    return [(where, line) for where, line in numbered if line and not line.startswith("#")]
