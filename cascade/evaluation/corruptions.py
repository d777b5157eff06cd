"""Photos as they come when the world is not that of the calibration photos. In: an upright RGB image. Out:
the same, blurred, compressed, small, grey, dark or crooked. What each does is fixed, so figures compare."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Final

from PIL import Image, ImageEnhance, ImageFilter

__all__ = ["SHIFTS"]

#: Relative to the shorter side, so that a shift means the same for every size of photo.
_BLUR: Final = 0.01
_QUALITY: Final = 20
_DARKER: Final = 0.5
_DEGREES: Final = 10.0


def _blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_BLUR * min(image.size)))


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    with Image.open(file) as compressed:
        return compressed.convert("RGB")


def _half(image: Image.Image) -> Image.Image:
    size = max(1, image.width // 2), max(1, image.height // 2)
    return image.resize(size, Image.Resampling.LANCZOS)


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def _darker(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(_DARKER)


def _rotated(image: Image.Image) -> Image.Image:
    """Turn, and cut out the largest part of the same shape that has no empty corners."""
    angle = math.radians(_DEGREES)
    ratio = max(image.size) / min(image.size)
    scale = 1 / (math.cos(angle) + ratio * math.sin(angle))
    turned = image.rotate(_DEGREES, Image.Resampling.BICUBIC)
    width, height = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return turned.crop((left, top, left + width, top + height))


#: Name -> what it does to a photo.
SHIFTS: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "blurred": _blur,
    f"JPEG quality {_QUALITY}": _jpeg,
    "half resolution": _half,
    "grey": _grey,
    "darker": _darker,
    "rotated by 10 degrees": _rotated,
}
