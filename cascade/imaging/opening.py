"""Opens the file or file object that holds a photo; what cannot be opened is an error of that photo."""

from __future__ import annotations

import io
import os
import re
import stat
from typing import BinaryIO

from cascade.errors import ImageError, UsageError
from cascade.imaging.formats import reason

__all__ = ["as_seekable", "open_photo", "open_without_waiting"]


def open_photo(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; every reason why that fails becomes an `ImageError`."""
    try:
        # Opening a device can do something (rewind a tape), a named pipe blocks for ever: look first.
        _check_regular(os.stat(path).st_mode)  # noqa: PTH116 - os.PathLike is more than Path
        file = open(path, "rb", opener=open_without_waiting)  # noqa: SIM115 - returned open
        try:
            _check_regular(os.fstat(file.fileno()).st_mode)  # it may have been replaced in between
        except BaseException:
            file.close()
            raise
        return file
    except FileNotFoundError as error:
        raise ImageError("not_found", _why_not_found(path)) from error
    except PermissionError as error:
        raise ImageError("not_permitted", "permission denied") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError("unreadable", f"cannot be read: {reason(error)}") from error


def _why_not_found(path: str | os.PathLike[str]) -> str:
    if re.match("(https?|ftp|s3|gs|file|data):", str(path), re.IGNORECASE):
        return "no such file: it is a web address; `cascade classify` reads it, here give a file or its bytes"
    return "no such file"


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file as `os.open` does, without waiting for the writer of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise ImageError("is_directory", "is a folder; give its photos, or the folder to `classify`")
    if not stat.S_ISREG(mode):
        raise ImageError("unreadable", "is a pipe, socket or device, not a regular file")


def as_seekable(source: BinaryIO) -> BinaryIO:
    """Return a seekable binary file; a stream that cannot seek is read into memory."""
    try:
        if source.seekable() and source.tell() == 0 and isinstance(source.read(0), bytes):
            return source
        data = source.read()
        if data == b"" and source.seekable() and source.tell():  # at its end, as after writing to it
            source.seek(0)
            data = source.read()
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"the file object could not be read: {reason(error)}") from error
    if not isinstance(data, bytes):
        raise UsageError("the file object yields text; open it in binary mode ('rb')")
    return io.BytesIO(data)
