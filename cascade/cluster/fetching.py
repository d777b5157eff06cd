"""Reads photos from object stores and other URLs, several at a time and a little ahead of their use."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from cascade.errors import ImageError, MissingExtraError

__all__ = ["MAX_BYTES", "ahead", "is_url", "read_url"]

#: Larger objects are no photos; one of them must not take the memory of a worker.
MAX_BYTES: Final = 256 << 20
#: Seconds between tries; a file system that retries by itself does so within each of them.
_PAUSES: Final = (0.2, 1.0, 4.0)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

Taken = TypeVar("Taken")
Given = TypeVar("Given")


def is_url(path: str) -> bool:
    """Whether a path names something that fsspec opens, and no local file."""
    return _URL.match(path) is not None


def read_url(url: str, *, pauses: Iterable[float] = _PAUSES) -> bytes:
    """Return the content of an object; what may pass is tried again.

    Args:
        url: what fsspec takes: ``s3://``, ``gs://``, ``https://``, ``file://`` and others.
        pauses: seconds between tries; one try more than there are pauses.

    Raises:
        ImageError: when it cannot be read, or is larger than `MAX_BYTES`.
        MissingExtraError: when the package for this kind of URL is not installed.
    """
    for pause in (*pauses, None):
        try:
            return _read(url)
        except ImageError:
            raise
        except FileNotFoundError as error:
            raise ImageError("not_found", "there is no such object") from error
        except PermissionError as error:
            raise ImageError("not_permitted", "the object may not be read") from error
        except IsADirectoryError as error:
            raise ImageError("is_directory", "is a folder; give its photos") from error
        except ImportError as error:
            raise MissingExtraError(f"reading {url.partition('://')[0]}:// URLs ({error})", "ray") from error
        except Exception as error:  # every file system has exceptions of its own
            if pause is None:
                text = " ".join(str(error).split()) or type(error).__name__
                raise ImageError("unreadable", f"cannot be read: {text}") from error
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _read(url: str) -> bytes:
    import fsspec

    files, path = fsspec.core.url_to_fs(url)
    try:
        # One request: a range never asks for the length first.
        content: bytes = files.cat_file(path, start=0, end=MAX_BYTES + 1)
    except OSError as error:
        # An empty object has no range that could be given.
        if "range" in str(error).lower() and files.size(path) == 0:
            return b""
        raise
    if len(content) > MAX_BYTES:
        raise ImageError("unreadable", f"is larger than {MAX_BYTES >> 20} MB, which no photo is")
    return content


def ahead(
    function: Callable[[Taken], Given], items: Iterable[Taken], *, threads: int, most: int
) -> Iterator[Given]:
    """Yield ``function(item)`` of every item in order, computed by other threads.

    Args:
        function: must not raise for what is wrong with one item only.
        items: any number of them.
        threads: that work at a time.
        most: results that may wait; it bounds the memory.
    """
    pending: deque[Future[Given]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
