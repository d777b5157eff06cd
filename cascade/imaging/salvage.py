"""Recovers what can still be read of a photo that ends early.

Pillow has a switch for this, `ImageFile.LOAD_TRUNCATED_IMAGES`, but it is one for the whole process: turning
it on here would change what other threads and other libraries read. Everything here is about one image only.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO, Final

import numpy as np
from PIL import Image, ImageFile

from cascade.arrays import Bools

__all__ = ["ENOUGH_ROWS", "completed_progressive", "decoded_part"]

#: A photo is classified when more than this share of its rows was decoded. Interlaced files that lack their
#: last pass have exactly half of their rows, and look like a grid.
ENOUGH_ROWS: Final = 0.5

#: This many complete scans of a progressive JPEG are enough. The first alone is one value per 8 x 8 pixels.
_ENOUGH_SCANS: Final = 2

#: What is no byte of compressed data (FF 00), no restart (FF D0 to FF D7) and no padding (FF FF).
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOF2, _SOS, _EOI = b"\xff\xc2", b"\xff\xda", b"\xff\xd9"


def decoded_part(image: Image.Image) -> tuple[Image.Image, float] | None:
    """Return what was decoded before `load` failed, and its share of the rows; None if it is too little.

    Decoders write row by row into memory that starts as zeros, so rows that are zero throughout were not
    reached. (A photo whose own rows are black loses those too, which does no harm.)

    Args:
        image: its ``load()`` has raised; left as it was, so that another ``load()`` raises again.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return None
    pending = image.tile
    # An image without pending tiles counts as loaded. This is the only handle that Pillow gives per image.
    image.tile = []
    try:
        rows = np.flatnonzero(_rows_with_content(image))
        share = len(rows) / image.height
        if share <= ENOUGH_ROWS:
            return None
        return image.crop((0, int(rows[0]), image.width, int(rows[-1]) + 1)), share
    except (OSError, ValueError):  # nothing was decoded at all: WebP, AVIF and HEIF give all or nothing
        return None
    finally:
        image.tile = pending


def _rows_with_content(image: Image.Image) -> Bools:
    """Return for each row whether any of its bytes is not zero."""
    if image.mode.startswith("I;16"):  # getprojection reads such rows as if they were four bytes wide
        return np.asarray(np.asarray(image).any(axis=1), dtype=np.bool_)
    return np.array(image.getprojection()[1], dtype=np.bool_)


def completed_progressive(file: BinaryIO) -> BinaryIO | None:
    """Return a truncated progressive JPEG with an end put to it, or None if it has too little to show.

    A progressive JPEG holds the whole photo in ever finer scans, and the decoder waits for all of them. Given
    an end marker it settles for those that are there.
    """
    file.seek(0)
    data = file.read()
    if data.endswith(_EOI):
        return None
    # A thumbnail inside the metadata has markers of its own; the photo's frame header comes last.
    frame = data.rfind(_SOF2)
    if frame < 0:
        return None
    position, end, scans = frame, len(data), 0
    while marker := _MARKER.search(data, position):
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
        if position >= len(data):
            # Cut within a table or a scan's header. An end marker put there would be taken for its content.
            end = marker.start()
            break
        scans += marker[0] == _SOS
    return io.BytesIO(data[:end] + _EOI) if scans > _ENOUGH_SCANS else None
