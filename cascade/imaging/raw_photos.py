"""Recognises the raw photos of cameras by their content, and reads the picture that the camera put into them.

Raw files hold what the sensor saw, and nearly always a finished JPEG beside it; that is what a camera shows
and what is classified here. Pillow must not open them: many begin like a TIFF, and it takes a thumbnail or
the pattern of the sensor for the photo. Needs the extra `raw` (rawpy, which carries LibRaw).
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final

from PIL import Image, JpegImagePlugin, TiffImagePlugin

from cascade.errors import ImageError
from cascade.imaging.memory import reserved

__all__ = ["RAW_SUFFIXES", "is_raw_start", "open_raw", "raw_kind"]

#: Endings of raw photos, in lower case.
RAW_SUFFIXES: Final = (
    *(".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".dng"),
    *(".orf", ".rw2", ".pef", ".srw"),
)

#: First bytes that no other format has -> the kind.
_STARTS: Final = {
    b"FUJIFILMCCD-RAW": "RAF (Fujifilm)",
    b"IIRO": "ORF (Olympus)",
    b"IIRS": "ORF (Olympus)",
    b"MMOR": "ORF (Olympus)",
    b"IIU\0": "RW2 (Panasonic)",
}
_TIFF: Final = (b"II*\0", b"MM\0*")
_CR2: Final = b"CR\x02"  # at the ninth byte
_CR3: Final = b"ftypcrx "  # at the fifth byte

# Tags of TIFF 6.0, TIFF/EP and DNG 1.7.
_PHOTOMETRIC, _MAKE, _NEXT_LEVEL, _DNG_VERSION = 262, 271, 330, 50706
#: Colour filter array and linear raw: values of the sensor.
_SENSOR: Final = (32803, 34892)
_KIND_OF_MAKE: Final = {
    "NIKON": "NEF (Nikon)",
    "SONY": "ARW (Sony)",
    "PENTAX": "PEF (Pentax)",
    "SAMSUNG": "SRW",
}
#: Directories of a file that are looked at; files that point in circles end there.
_MOST_DIRECTORIES: Final = 16

#: A preview whose shorter side has fewer pixels than this is a thumbnail; the photo is developed instead.
_SMALLEST_PREVIEW: Final = 256
#: What developing at half size holds at its peak: 16 bits of the sensor, and a quarter of 4 x 16 bits twice.
_BYTES_PER_SENSOR_PIXEL: Final = 6
#: LibRaw's turn of the sensor's picture -> EXIF orientation.
_ORIENTATION_OF_FLIP: Final = {3: 3, 5: 8, 6: 6}
_ORIENTATION: Final = 0x0112


def is_raw_start(head: bytes) -> bool:
    """Return whether the first 16 bytes alone say that a file is a raw photo; others begin like a TIFF."""
    return head.startswith(tuple(_STARTS)) or head[4:12] == _CR3


def raw_kind(file: BinaryIO, head: bytes) -> str | None:
    """Return what kind of raw photo a file is, for people; None if it is none.

    Args:
        file: seekable; its position is changed.
        head: its first 16 bytes or more.
    """
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[4:12] == _CR3:
        return "CR3 (Canon)"
    if not head.startswith(_TIFF):
        return None
    if head[8:11] == _CR2:
        return "CR2 (Canon)"
    make, sensor = "", False
    for directory in _directories(file, head):
        if _DNG_VERSION in directory:
            return "DNG"
        make = make or str(directory.get(_MAKE, ""))
        sensor = sensor or directory.get(_PHOTOMETRIC) in _SENSOR
    if not sensor:
        return None
    return next(
        (kind for name, kind in _KIND_OF_MAKE.items() if make.upper().startswith(name)), "of a camera"
    )


def _directories(file: BinaryIO, head: bytes) -> Iterator[Any]:
    """Yield the directories of a TIFF, and those below them; a damaged one ends the search."""
    first = TiffImagePlugin.ImageFileDirectory_v2(head[:8]).next
    waiting = [first] if first else []
    for _ in range(_MOST_DIRECTORIES):
        if not waiting:
            return
        directory = TiffImagePlugin.ImageFileDirectory_v2(head[:8])
        with suppress(OSError, SyntaxError, ValueError, TypeError, struct.error), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged tags; this is not the place to complain
            file.seek(waiting.pop(0))
            directory.load(file)
            below = directory.get(_NEXT_LEVEL, ())
            waiting += [directory.next] if directory.next else []
            waiting += below if isinstance(below, tuple) else (below,)
            yield directory


def open_raw(file: BinaryIO, kind: str) -> Image.Image:
    """Return the camera's own picture of a raw photo, opened; where there is none, the developed photo.

    Args:
        file: seekable; read whole.
        kind: from `raw_kind`.

    Raises:
        ImageError: ``unsupported`` without the extra `raw` or for a camera that LibRaw does not know,
            ``damaged`` when nothing can be read.
    """
    try:
        rawpy = importlib.import_module("rawpy")
    except ImportError as error:
        raise ImageError(
            "unsupported", f"is a raw photo, {kind}, which needs: pip install 'cascade-vision[raw]'"
        ) from error
    file.seek(0)
    try:
        with rawpy.imread(file) as raw:
            preview = _preview(rawpy, raw)
            if preview is None or min(preview.size) < _SMALLEST_PREVIEW:
                with reserved(raw.sizes.raw_width * raw.sizes.raw_height * _BYTES_PER_SENSOR_PIXEL):
                    return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
            if _ORIENTATION not in preview.getexif():
                preview.getexif()[_ORIENTATION] = _ORIENTATION_OF_FLIP.get(raw.sizes.flip, 1)
            return preview
    except rawpy.LibRawFileUnsupportedError as error:
        raise ImageError(
            "unsupported", f"is a raw photo, {kind}, of a camera that LibRaw does not know; convert it to DNG"
        ) from error
    except rawpy.LibRawError as error:
        raise ImageError(
            "damaged", f"is a raw photo, {kind}, that cannot be read ({_text(error)})"
        ) from error


def _preview(rawpy: Any, raw: Any) -> Image.Image | None:
    try:
        found = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if found.format == rawpy.ThumbFormat.JPEG:
        return JpegImagePlugin.JpegImageFile(io.BytesIO(found.data))
    return Image.fromarray(found.data)


def _text(error: Exception) -> str:
    """LibRaw's messages are bytes in the exception's arguments."""
    detail = error.args[0] if error.args else ""
    return (
        detail.decode("utf-8", "replace")
        if isinstance(detail, bytes)
        else str(detail) or type(error).__name__
    )
