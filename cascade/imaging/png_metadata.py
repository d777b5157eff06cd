"""Reads PNG files whose text or colour profile is larger than Pillow accepts, by leaving that part out.

Pillow's limits (`PngImagePlugin.MAX_TEXT_CHUNK`, `MAX_TEXT_MEMORY`) belong to the whole process, so they are
not raised here. A screenshot with a large text in it still has all its pixels.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

__all__ = ["is_over_limit", "without_metadata"]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")
#: Bytes of a colour profile that are unpacked; the largest profiles of printers have a few million.
_LARGEST_PROFILE: Final = 16 << 20


def is_over_limit(error: Exception) -> bool:
    """Return whether Pillow refused a PNG because of the size of its text or colour profile."""
    return isinstance(error, ValueError) and "MAX_TEXT_" in str(error)


def without_metadata(file: BinaryIO) -> tuple[BinaryIO, bytes | None]:
    """Return a PNG without its texts and colour profile, and the profile, unpacked.

    Args:
        file: a PNG, seekable.

    Returns:
        (file in memory, ICC profile); the profile is None if there is none, or none that can be unpacked.
    """
    file.seek(0)
    kept, profile = [_SIGNATURE], None
    for name, chunk in _chunks(file.read()):
        if name == b"iCCP":
            profile = _unpacked(chunk[8:-4])
        elif name not in _TEXT:
            kept.append(chunk)
    return io.BytesIO(b"".join(kept)), profile


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, whole chunk: length, type, content and checksum)."""
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        yield data[position + 4 : position + 8], data[position:end]
        position = end


def _unpacked(content: bytes) -> bytes | None:
    """Return the profile of an iCCP chunk: a name, NUL, the method 0, then a zlib stream."""
    stream = content.partition(b"\0")[2][1:]
    try:
        unpacking = zlib.decompressobj()
        profile = unpacking.decompress(stream, _LARGEST_PROFILE)
    except zlib.error:
        return None
    return None if unpacking.unconsumed_tail else profile
