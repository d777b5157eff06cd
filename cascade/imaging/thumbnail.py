"""Makes the small copies of photos that pages show."""

from __future__ import annotations

import base64
import io

from PIL import Image

from cascade.errors import ImageError
from cascade.imaging.decoding import MAX_PIXELS, ImageSource, load_image

__all__ = ["thumbnail", "thumbnail_base64", "thumbnail_webp"]

_QUALITY = 70


def thumbnail(source: ImageSource, side: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a copy of a photo that fits into ``side`` x ``side`` pixels; a small photo stays as it is.

    Raises:
        ImageError: when the photo cannot be read.
    """
    # The reduction leaves at least the target, so the copy stays sharp and decoding stays cheap.
    image = load_image(source, target=(side, side), reducing_gap=1.0, max_pixels=max_pixels)
    image.thumbnail((side, side))
    return image


def thumbnail_base64(source: ImageSource, side: int, *, max_pixels: int = MAX_PIXELS) -> str | None:
    """Return a thumbnail as WebP in base64; None when the photo cannot be read (any more)."""
    try:
        data = thumbnail_webp(source, side, max_pixels=max_pixels)
    except ImageError:
        return None
    return base64.b64encode(data).decode("ascii")


def thumbnail_webp(source: ImageSource, side: int, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return a thumbnail as a WebP file.

    Raises:
        ImageError: when the photo cannot be read.
    """
    data = io.BytesIO()
    thumbnail(source, side, max_pixels=max_pixels).save(data, "WEBP", quality=_QUALITY, method=2)
    return data.getvalue()
