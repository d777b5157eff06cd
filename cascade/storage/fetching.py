"""Reads objects from object stores and other URLs, and work ahead of its use on other threads."""

from __future__ import annotations

import io
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, Final, TypeVar

from cascade.errors import ImageError, MissingExtraError, UsageError

__all__ = ["MAX_BYTES", "ahead", "file_system", "is_url", "open_url", "read_url", "trying_again"]

#: Larger objects are no photos; one of them must not take the memory of a worker.
MAX_BYTES: Final = 256 << 20
#: Seconds between tries; a file system that retries by itself does so within each of them.
PAUSES: Final = (0.2, 1.0, 4.0)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: Bytes that are read at once from a large object: few enough to hold, so many that latency does not matter.
_BLOCK: Final = 4 << 20
#: Protocol -> the extra whose packages read it.
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
#: HTTP status of a request that may not be made.
_REFUSED: Final = (401, 403)

# gcsfs logs what it also raises. Python prints such records unless somebody takes them; with --verbose
# they are shown all the same.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())

Taken = TypeVar("Taken")
Given = TypeVar("Given")


def is_url(path: str) -> bool:
    """Whether a path names something that fsspec opens, and no local file."""
    return _URL.match(path) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path of the URL in it.

    Raises:
        MissingExtraError: when the package for this kind of URL is not installed; `UsageError` when no extra
            has it.
        ImageError: when there is no such kind of URL.
    """
    protocol = url.partition("://")[0].lower()
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        if protocol in _EXTRAS or error.name == "fsspec":
            extra = _EXTRAS.get(protocol, "s3")
            raise MissingExtraError(f"opening {protocol}:// URLs ({error})", extra) from error
        raise UsageError(f"opening {protocol}:// URLs needs a package that is missing: {error}") from error
    except ValueError as error:
        raise ImageError("unreadable", f"cannot be read: {_one_line(error)}") from error
    return files, path


def read_url(url: str, *, pauses: Iterable[float] = PAUSES) -> bytes:
    """Return the content of an object; what may pass is tried again.

    Args:
        url: what fsspec takes: ``s3://``, ``gs://``, ``https://``, ``file://`` and others.
        pauses: seconds between tries; one try more than there are pauses.

    Raises:
        ImageError: when it cannot be read, or is larger than `MAX_BYTES`.
        MissingExtraError: when the package for this kind of URL is not installed.
    """
    files, path = file_system(url)
    return trying_again(lambda: _read(files, path), pauses=pauses)


def trying_again(read: Callable[[], Given], *, pauses: Iterable[float] = PAUSES) -> Given:
    """Return what ``read`` returns; what may pass is tried again, what is certain becomes an error at once.

    Raises:
        ImageError: when it cannot be read.
    """
    for pause in (*pauses, None):
        try:
            return read()
        except ImageError:
            raise
        except FileNotFoundError as error:
            raise ImageError("not_found", "there is no such object") from error
        except PermissionError as error:
            raise ImageError("not_permitted", "the object may not be read") from error
        except IsADirectoryError as error:
            raise ImageError("is_directory", "is a folder; give its photos") from error
        except Exception as error:  # every file system has exceptions of its own
            if _is_refused(error):
                raise ImageError("not_permitted", "the object may not be read") from error
            if pause is None:
                raise ImageError("unreadable", f"cannot be read: {_one_line(error)}") from error
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _is_refused(error: Exception) -> bool:
    """Whether an exception says that the request is not allowed; gcsfs and HTTP have no `PermissionError`."""
    status = getattr(error, "code", getattr(error, "status", None))
    return status in _REFUSED or str(error).startswith("Forbidden: ")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(files: Any, path: str) -> bytes:
    try:
        # One request: a range never asks for the length first.
        content: bytes = files.cat_file(path, start=0, end=MAX_BYTES + 1)
    except Exception as error:  # gcsfs raises one of its own
        # An empty object has no range that could be given.
        if "range" in str(error).lower() and files.size(path) == 0:
            return b""
        raise
    if len(content) > MAX_BYTES:
        raise ImageError("too_many_bytes", f"has more than {MAX_BYTES >> 20} MB, which no photo has")
    return content


def open_url(url: str) -> BinaryIO:
    """Open a large object, such as an archive; it is read block by block, each of them with retries.

    Raises:
        ImageError: when it cannot be read; reading raises it too.
        MissingExtraError: when the package for this kind of URL is not installed.
    """
    files, path = file_system(url)
    size = trying_again(lambda: int(files.info(path)["size"]))
    return io.BufferedReader(_Blocks(files, path, size), _BLOCK)


class _Blocks(io.RawIOBase):
    """A remote object as a file that can be sought in; every read is one request for a range."""

    def __init__(self, files: Any, path: str, size: int) -> None:
        self._files, self._path, self._size, self._at = files, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        start = self._at
        data = trying_again(lambda: self._files.cat_file(self._path, start=start, end=end))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def ahead(
    function: Callable[[Taken], Given],
    items: Iterable[Taken],
    *,
    threads: int,
    most: int,
    size_of: Callable[[Taken], int] = lambda item: 0,
    most_bytes: int = MAX_BYTES,
) -> Iterator[Given]:
    """Yield ``function(item)`` of every item in order, computed by other threads.

    Args:
        function: must not raise for what is wrong with one item only.
        items: any number of them.
        threads: that work at a time.
        most: results that may wait; it bounds the memory.
        size_of: returns how many bytes the result of an item takes.
        most_bytes: bytes of results that may wait, though one result always may.
    """
    pending: deque[tuple[Future[Given], int]] = deque()
    waiting = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
    try:
        for item in items:
            size = max(0, size_of(item))
            pending.append((pool.submit(function, item), size))
            waiting += size
            while len(pending) >= most or (pending and waiting > most_bytes):
                first, size = pending.popleft()
                waiting -= size
                yield first.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
