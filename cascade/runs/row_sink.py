"""Hands rows to a file or to standard output, and notices when somebody else changed the file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from cascade.errors import OutputError

__all__ = ["RowSink", "exists_message", "tail_hash"]


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
            raise OutputError.writing(self.path, error) from error

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
        """See `tail_hash`."""
        return tail_hash(self._descriptor, length)

    def truncate(self, length: int) -> None:
        """Drop everything after a length in bytes."""
        os.ftruncate(self._descriptor, length)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self.path is not None:
            os.close(self._descriptor)


_TAIL_BYTES: Final = 4096


def tail_hash(descriptor: int, length: int) -> str:
    """SHA-256 of the last bytes of a file before a position: tells whether somebody else changed the file."""
    os.lseek(descriptor, max(0, length - _TAIL_BYTES), os.SEEK_SET)
    tail = os.read(descriptor, min(length, _TAIL_BYTES))
    os.lseek(descriptor, 0, os.SEEK_END)
    return hashlib.sha256(tail).hexdigest()


def exists_message(path: Path) -> str:
    """Say that a file is in the way, and the three ways out."""
    return (
        f"{path}: exists and is not overwritten; --resume continues an interrupted run, "
        "--restart begins again, or give another name to --output"
    )
