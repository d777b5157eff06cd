"""Reads photos that are no local files, and hashes contents, on other threads a little ahead of their use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from cascade.errors import ImageError
from cascade.imaging.files import Found
from cascade.prediction import ErrorInfo
from cascade.storage.fetching import ahead

__all__ = ["Item", "content_hash", "with_contents", "with_hashes"]

_HASH_THREADS: Final = 2
#: Object stores answer late, but many at once.
_READ_THREADS: Final = 32
#: Bytes of photos that wait for their turn.
_MOST_BYTES: Final = 256 << 20
#: What a photo of unknown size is taken for.
_USUAL_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """A photo to classify.

    Attributes:
        found: the photo.
        sha256: of its content, where that is wanted and could be read.
        content: its bytes, once they were read; None for a local file, which its decoder opens.
    """

    found: Found
    sha256: str | None = None
    content: bytes | None = None

    @property
    def bare(self) -> Item:
        """The same without bytes, to be kept while others are worked on."""
        return Item(replace(self.found, read=None), self.sha256)


def content_hash(found: Found) -> str | None:
    """SHA-256 of a local file's content; None when it cannot be read (classifying it says why)."""
    if found.error is not None or found.size < 0:
        return None
    try:
        with Path(found.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def with_contents(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in order; what is no local file with its bytes, or the error of reading it."""
    for missing, group in groupby(items, _lacks_content):
        if missing:
            yield from _ahead(_read, group, _READ_THREADS)
        else:
            yield from group


def with_hashes(found: Iterable[Found]) -> Iterator[Item]:
    """Yield the photos in order with the hash of their content, and with their bytes where they were read."""
    for remote, group in groupby(map(Item, found), _lacks_content):
        yield from _ahead(_hashed, group, _READ_THREADS if remote else _HASH_THREADS)


def _ahead(work: Callable[[Item], Item], items: Iterable[Item], threads: int) -> Iterator[Item]:
    most = 16 * _HASH_THREADS if threads == _HASH_THREADS else 2 * threads
    return ahead(work, items, threads=threads, most=most, size_of=_size, most_bytes=_MOST_BYTES)


def _size(item: Item) -> int:
    if not _lacks_content(item):
        return 0
    return item.found.size if item.found.size >= 0 else _USUAL_BYTES


def _lacks_content(item: Item) -> bool:
    return item.found.read is not None and item.content is None and item.found.error is None


def _read(item: Item) -> Item:
    if item.found.read is None:
        return item
    try:
        return replace(item, content=item.found.read())
    except ImageError as error:
        return replace(item, found=replace(item.found, error=ErrorInfo(error.code, error.message)))


def _hashed(item: Item) -> Item:
    if not _lacks_content(item):
        return replace(item, sha256=content_hash(item.found))
    item = _read(item)
    return item if item.content is None else replace(item, sha256=hashlib.sha256(item.content).hexdigest())
