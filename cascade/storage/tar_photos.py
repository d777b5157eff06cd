"""Reads the photos of a tar archive, front to back, once, and without unpacking it.

Nothing in an archive is trusted. Member names become text in a row and never a file. Members that claim to be
larger than any photo are not read, nor are headers of more than a megabyte; links are passed over. An archive
that ends early or is damaged gives the photos before that place, and then one row that says so: `tarfile`
alone would end without a word.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, Final

from cascade.errors import ImageError
from cascade.imaging.files import FindOptions, Found
from cascade.imaging.recognition import PHOTO_SUFFIXES, starts_like_photo
from cascade.prediction import ErrorInfo
from cascade.storage.fetching import MAX_BYTES

__all__ = ["photos_of_tar"]

_MAX_HEADER: Final = 1 << 20
_MAX_GLOBAL_HEADERS: Final = 1000
_HEAD: Final = 32
_BLOCK: Final = 512
#: What a compressed archive begins with, and how it is opened.
_COMPRESSED: Final[tuple[tuple[bytes, Any], ...]] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


class _Forward:
    """What `tarfile` reads an archive through: forwards only, and never much at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        #: The last header that was read.
        self.last = b""

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.ReadError("a header points backwards")
        if position > self._at:
            self._stream.seek(position)
            self._at = position

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims to have {size:,} bytes")
        self.last = self.content(size)
        return self.last

    def content(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data


def photos_of_tar(file: BinaryIO, archive: Found, options: FindOptions) -> Iterator[Found]:
    """Yield the photos of an archive, ``ARCHIVE/MEMBER`` by name, and a row for what is wrong with it.

    Args:
        file: the archive, as it is or compressed with gzip, bzip2 or xz; a buffered reader.
        archive: where it came from; its time is that of every photo in it.
        options: counts what was passed over.
    """
    photos = 0
    try:
        head = file.peek(6)[:6]  # type: ignore[attr-defined] # every buffered reader can
        opener = next((opener for magic, opener in _COMPRESSED if head.startswith(magic)), None)
        stream = _Forward(file if opener is None else opener(file))
        for found in _members(stream, archive, options):
            photos += 1
            yield found
        if stream.last.count(0) != _BLOCK:
            raise EOFError("it has no end mark")
    except ImageError as error:  # of the object that it is read from
        yield _broken(archive, error.code, error.message, photos)
    except (EOFError, tarfile.ReadError) as error:
        code = "truncated" if isinstance(error, EOFError) or "end of data" in str(error) else "damaged"
        yield _broken(archive, code, str(error), photos)
    except Exception as error:  # headers can be wrong in many ways
        yield _broken(archive, "damaged", f"{type(error).__name__}: {error}", photos)


def _broken(archive: Found, code: str, why: str, photos: int) -> Found:
    what = "ends early" if code == "truncated" else "cannot be read further" if photos else "cannot be read"
    text = f"the tar archive {what} ({why}); {photos:,} photos before that have rows of their own"
    return Found(archive.path, archive.size, archive.mtime_ns, ErrorInfo(code, text))


def _members(stream: _Forward, archive: Found, options: FindOptions) -> Iterator[Found]:
    names: set[int] = set()
    with tarfile.TarFile(fileobj=stream) as tar:  # type: ignore[arg-type] # reads and seeks are all it does
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined] # they would be kept for unpacking
            if len(tar.pax_headers) > _MAX_GLOBAL_HEADERS:
                raise tarfile.ReadError("too many global headers")
            if member.isdir():
                continue
            name = _plain(member.name)
            reason = _why_left_out(name, member, options)
            content = None if reason else _content(stream, name, member)
            if content is None:
                options.left_out[reason or "not photos"] += 1
                continue
            path = f"{archive.path}/{_unused(name, names)}"
            if isinstance(content, ErrorInfo):
                yield Found(path, member.size, archive.mtime_ns, content)
            else:
                yield Found(path, member.size, archive.mtime_ns, read=partial(bytes, content))
            if not isinstance(content, ErrorInfo) and len(content) < member.size:
                raise EOFError("in the middle of a photo")


def _plain(name: str) -> str:
    """Return the name of a member without what would lead out of a folder."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", "..")) or "unnamed"


def _unused(name: str, names: set[int]) -> str:
    """Return the name, numbered if the archive had it before: every photo has a row of its own."""
    unused, number = name, 1
    while hash(unused) in names:  # hashes, because names would take several times the memory
        number += 1
        unused = f"{name}#{number}"
    names.add(hash(unused))
    return unused


def _why_left_out(name: str, member: tarfile.TarInfo, options: FindOptions) -> str | None:
    if member.issym() or member.islnk():
        return "links"
    if not member.isreg():
        return "not photos"
    if not options.hidden and any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    return None


def _content(stream: _Forward, name: str, member: tarfile.TarInfo) -> bytes | ErrorInfo | None:
    """Return the bytes of a member, why it cannot be read, or None when it is no photo."""
    named_like_one = any(name.lower().endswith(suffix) for suffix in PHOTO_SUFFIXES)
    if named_like_one and member.issparse():
        return ErrorInfo("unsupported", "is stored as a sparse file; pack it without --sparse")
    if named_like_one and member.size > MAX_BYTES:
        return ErrorInfo("too_many_bytes", f"has {member.size:,} bytes, which no photo has; it was not read")
    if member.issparse() or member.size > MAX_BYTES:
        return None
    stream.seek(member.offset_data)
    head = stream.content(min(_HEAD, member.size))
    if not named_like_one and not starts_like_photo(head):
        return None
    return head + stream.content(member.size - len(head))
