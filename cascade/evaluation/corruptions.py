"""Changes photos as other cameras and web sites would; what each change does is fixed, so figures compare.

Some changes make a photo worse: blurred, compressed, dark. Others show the same photo as a thumbnail site or
another camera would; an answer that one of these changes was read from the sharpness of the photo and not
from what it shows.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Final

from PIL import Image, ImageEnhance, ImageFilter

__all__ = ["CORRUPTIONS"]

#: Relative to the shorter side, so that a shift means the same for every size of photo.
_BLUR: Final = 0.01
_QUALITY: Final = 20
_DARKER: Final = 0.5
_DEGREES: Final = 10.0
#: Of a thumbnail site.
_THUMBNAIL, _SMALL_THUMBNAIL, _THUMBNAIL_QUALITY = 128, 96, 60
_SLIGHT_BLUR: Final = 0.004


def _blur(image: Image.Image, share: float = _BLUR) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def _sharpened(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0))


def _squashed(image: Image.Image, side: int = _THUMBNAIL) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC)


def _thumbnail(image: Image.Image) -> Image.Image:
    return _jpeg(_squashed(image), _THUMBNAIL_QUALITY)


def _jpeg(image: Image.Image, quality: int = _QUALITY) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
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
CORRUPTIONS: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "blurred": _blur,
    f"JPEG quality {_QUALITY}": _jpeg,
    "half resolution": _half,
    "grey": _grey,
    "darker": _darker,
    "rotated by 10 degrees": _rotated,
    f"squashed to {_THUMBNAIL} px": _squashed,
    f"squashed to {_SMALL_THUMBNAIL} px": partial(_squashed, side=_SMALL_THUMBNAIL),
    f"{_THUMBNAIL} px, JPEG {_THUMBNAIL_QUALITY}": _thumbnail,
    "slightly blurred": partial(_blur, share=_SLIGHT_BLUR),
    "sharpened": _sharpened,
}
