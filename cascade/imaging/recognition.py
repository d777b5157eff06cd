"""Tells photos from the other files of a folder, by their names or their first bytes."""

# Names are plain strings, see `cascade.imaging.files`.
# ruff: noqa: PTH116, PTH123

from __future__ import annotations

import os
import stat
from typing import Final

from cascade.imaging.raw_photos import RAW_SUFFIXES, is_raw_start

__all__ = [
    "ARCHIVE_SUFFIXES",
    "PHOTO_SUFFIXES",
    "is_named_like_an_archive",
    "looks_like_photo",
    "starts_like_photo",
]

#: Endings of photos, in lower case. `cascade.imaging.decoding` decides by content; this list only spares
#: folder scans from opening every file.
PHOTO_SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif"),
        *(".bmp", ".dib", ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
        *RAW_SUFFIXES,
    )
)

#: Endings of files that hold many photos, in lower case.
ARCHIVE_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".parquet")

_READ_BYTES: Final = 32
_ISO_BRANDS: Final = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_BMP_HEADERS: Final = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))


def looks_like_photo(path: str) -> bool:
    """Whether a regular file begins like an image of a format that cascade reads."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(_READ_BYTES)
    except (OSError, ValueError):
        return False
    return starts_like_photo(head)


def is_named_like_an_archive(name: str) -> bool:
    """Whether a name ends like that of a tar archive or Parquet file."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def starts_like_photo(head: bytes) -> bool:
    """Whether the first bytes of a file, 32 of them if there are so many, are those of an image."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _ISO_BRANDS)
        or is_raw_start(head)
        # Two letters are little to go by; a BMP also has four reserved bytes of zero and a known header size.
        or (head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and head[14:18] in _BMP_HEADERS)
    )
