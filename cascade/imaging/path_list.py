"""Reads a list of photos from a stream, such as standard input."""

from __future__ import annotations

import itertools
import os
import select
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from cascade.imaging.files import Found, look_at

__all__ = ["read_list"]

_READ_BYTES: Final = 65536
#: Seconds between two looks at whether to stop, while nothing comes.
_WAIT_SECONDS: Final = 0.2


def read_list(
    stream: BinaryIO, *, null: bool = False, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Found]:
    """Read paths from a stream, one on each line, as they come.

    Args:
        stream: binary, since names need not be text.
        null: paths end with a NUL instead (``find -print0``), so that a name may hold a newline.
        stopped: whether to end; looked at while nothing comes, too.
    """
    rest = b""
    for chunk in itertools.chain(_chunks(stream, stopped), [b""]):
        *whole, rest = (rest + chunk).split(b"\0" if null else b"\n")
        if not chunk:  # the end; the last path may lack its separator
            whole.append(rest)
        for raw in whole:
            path = raw if null else raw.rstrip(b"\r")
            if path:
                yield look_at(os.fsdecode(path))


def _chunks(stream: BinaryIO, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """What is there, as soon as it is there, so that a slow producer is served as it goes."""
    try:
        descriptor = stream.fileno() if os.name == "posix" else None
    except OSError:  # no file of the operating system
        descriptor = None
    while not stopped():
        if descriptor is None:
            chunk = stream.read(_READ_BYTES)
        elif select.select([descriptor], [], [], _WAIT_SECONDS)[0]:
            chunk = os.read(descriptor, _READ_BYTES)
        else:
            continue
        if not chunk:
            return
        yield chunk
