"""What the tests of all object stores share: an album of photos, and the rows of a run by name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["answers", "make_album", "rows"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answers(path: Path, home: str) -> dict[str, dict[str, Any]]:
    """Rows by name, without what may differ: time and the place of the photos."""
    return {
        row["path"].removeprefix(home).lstrip("/"): {k: v for k, v in row.items() if k not in ("path", "ms")}
        for row in rows(path)
    }


def make_album(folder: Path, photo: Callable[..., Any]) -> dict[str, bytes]:
    """Write 30 photos, a broken and an empty file below `album`, and `album.tar`; return all by name."""
    for number in range(30):
        label = ("bedroom", "kitchen", "beach", "forest", "menu")[number % 5]
        photo(f"album/{number % 3}/{number:03d} ü+%20.jpg", label, size=(16 + number, 16))
    (folder / "album" / "1" / "broken.jpg").write_bytes(b"no photo")
    (folder / "album" / "empty.jpg").write_bytes(b"")
    with tarfile.open(folder / "album.tar", "w") as tar:
        tar.add(folder / "album", arcname=".")
    files = [*(folder / "album").rglob("*.jpg"), folder / "album.tar"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
