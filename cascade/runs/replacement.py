"""Puts a new file in place of an old one at once, without touching any other file beside it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["replacing", "unused_name"]


def unused_name(folder: Path) -> Path:
    """Return a path in a folder that nobody else uses. The name is short, so it fits wherever a name fits."""
    return folder / f".cascade-{secrets.token_hex(8)}.new"


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Write a file in such a way that readers see the old content or the new one, and nothing between.

    The block fills a new, empty file in the same folder. When the block ends, that file takes the place of
    ``path``. When the block raises, the new file is deleted and ``path`` stays as it was.

    Args:
        path: the file to replace; it need not exist.
        durable: wait until the disk has the new content before it replaces the old.

    Yields:
        The path of the new file.

    Raises:
        OSError: when the file cannot be made or replaced.
    """
    new = unused_name(path.parent)
    # Exclusive, so that nobody's file is overwritten even if the name should exist.
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield new
        if durable:
            _sync(new)
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    # Windows syncs only what is open for writing; elsewhere a copy of a read-only photo must be synced too.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
