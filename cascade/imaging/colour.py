"""Converts what a decoder gives, of any mode, to sRGB.

Pixels are first brought to eight bits, then reduced, and only then colour-managed: converting a profile is
the slowest step of all, and a reduced photo has fewer pixels to convert.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_rgb"]

_SRGB: Final = ImageCms.createProfile("sRGB")


def to_rgb(image: Image.Image, factor: int, on_warning: Callable[[str], None]) -> Image.Image:
    """Return a photo as sRGB, reduced by a whole factor.

    Transparency is put on white. 16 bits per channel keep the upper eight; floating point is taken as 0..1,
    or as 0..255 where a value exceeds 1. CMYK without a profile is converted the way Pillow does it.

    Args:
        image: loaded, any mode; not changed.
        factor: both sides are divided by it, by averaging blocks of pixels; sizes are rounded up.
        on_warning: called with ``"profile_ignored: ..."`` when a colour profile is damaged or misfits.
    """
    profile = image.info.get("icc_profile")
    image = _to_eight_bits(image)
    if factor > 1:
        image = image.reduce(factor)
    if profile:
        image = _to_srgb(image, profile, on_warning)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in one of the modes L, RGB, RGBA and CMYK."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow opens some 16-bit files as 32-bit `I`; both hold values up to 65535.
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        real = np.nan_to_num(np.asarray(image), posinf=0.0, neginf=0.0)
        scale = 255.0 if real.max() <= 1.0 else 1.0
        return Image.fromarray((real * scale).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: bytes, on_warning: Callable[[str], None]) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in (source.profile.profile_description or ""):
            return image
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        plain = image.convert("RGB") if alpha is not None else image
        converted = ImageCms.profileToProfile(plain, source, _SRGB, outputMode="RGB")
        assert converted is not None  # only None when converting in place
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        on_warning(f"profile_ignored: the colour profile cannot be used ({str(error).strip()})")
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted
