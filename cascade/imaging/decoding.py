"""Reads one photo, from whatever holds it, as an upright RGB image near the size that is needed.

Every photo is decoded once, by `load_image`, whatever it is used for: prediction, evaluation and the
evaluation passes of training share it, so that preprocessing cannot differ between them.

Large photos are reduced by a whole factor while they are decoded (JPEG: at a reduced DCT scale, which
is several times faster; everything else: by averaging blocks of pixels). The factor depends only on the
size of the photo and on the bundle, so it is part of the contract and any other embedding can repeat it.
How far the two ways differ in the pixels that a graph sees is measured by `benchmarks/decode_paths.py`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from cascade.errors import ImageError, UsageError
from cascade.imaging.array_photos import TENSOR_ADVICE, image_of
from cascade.imaging.colour import to_rgb
from cascade.imaging.formats import FORMATS, as_image_error, identify
from cascade.imaging.memory import reserved
from cascade.imaging.opening import as_seekable, open_photo
from cascade.imaging.png_metadata import is_over_limit, without_metadata
from cascade.imaging.salvage import completed_progressive, decoded_part

__all__ = ["FORMATS", "MAX_PIXELS", "ImageSource", "load_image", "reduction_factor"]

#: What `load_image` accepts.
ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[Any]
)

#: Photos with more pixels than this are refused (the limit at which Pillow itself gives up).
MAX_PIXELS: Final = 178_956_970

#: EXIF orientation -> what makes the stored picture upright (EXIF 2.32, tag 0x0112).
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


#: As Pillow holds them; every mode that is not here takes four.
_BYTES_PER_PIXEL: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}


@dataclass(frozen=True, slots=True)
class _Wish:
    """How `load_image` was asked; see there."""

    target: tuple[int, int]
    reducing_gap: float
    max_pixels: int
    on_warning: Callable[[str], None]


def reduction_factor(size: tuple[int, int], target: tuple[int, int], reducing_gap: float) -> int:
    """Return the whole factor (1, 2, 4 or 8) by which a photo is reduced while it is decoded.

    The largest factor is taken that leaves both sides at least ``reducing_gap`` times the target, so
    that the resize that follows still has enough pixels to be antialiased properly.

    Args:
        size: (width, height) of the photo in pixels.
        target: (width, height) in pixels that preprocessing needs.
        reducing_gap: at least 1.0; larger is slower and closer to an exact resize.
    """
    factor = 1
    while factor < 8 and all(s / (factor * 2) >= t * reducing_gap for s, t in zip(size, target, strict=True)):
        factor *= 2
    return factor


def load_image(
    source: ImageSource,
    *,
    target: tuple[int, int] = (0, 0),
    reducing_gap: float = 2.0,
    max_pixels: int = MAX_PIXELS,
    on_warning: Callable[[str], None] | None = None,
) -> Image.Image:
    """Decode one photo to upright RGB.

    EXIF orientation is applied, embedded colour profiles are converted to sRGB, transparency is put on
    white, 16 bits become 8, and of an animation the first frame is taken. A file that ends early is
    cut to the rows that could be decoded, if those are more than half of it.

    Args:
        source: a path, the bytes of an image file, a binary file object (read from its position, or
            from its start when it is at its end), a PIL image (not changed), or an array, uint8, of shape
            (H, W, 3) RGB or (H, W) grey.
        target: (width, height) in pixels that will be needed; (0, 0) means full resolution.
        reducing_gap: see `reduction_factor`.
        max_pixels: photos with more pixels are refused before they are decoded.
        on_warning: called with ``"code: message"`` when the photo was read, but not as its maker meant;
            the codes are those of `cascade.errors.IMAGE_WARNING_CODES`.

    Returns:
        An image of mode RGB, without metadata. Its size is that of the photo divided by the reduction
        factor, rounded up.

    Raises:
        ImageError: when this photo cannot be used; its code says why.
        UsageError: when ``source`` is of a type that is no photo at all.
    """
    wish = _Wish(target, reducing_gap, max_pixels, on_warning or _ignore)
    if isinstance(source, np.ndarray):
        image = image_of(source)
        _check_size(image.size, max_pixels)
        return _finish(image, _factor(image.size, 1, wish), 1, wish)
    if isinstance(source, Image.Image):
        try:
            result = _load(source, wish, scaled=False)
        except ImageError:
            raise
        except Exception as error:  # an image that was opened lazily is decoded here
            raise as_image_error(error) from error
        return result
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), wish)
    if isinstance(source, str | os.PathLike):
        with open_photo(source) as file:
            return _decode(file, wish)
    if hasattr(source, "read"):
        return _decode(as_seekable(source), wish)
    if type(source).__module__.partition(".")[0] == "torch":
        raise UsageError(TENSOR_ADVICE)
    raise UsageError(
        f"cannot read a photo from {type(source).__name__}; give a path, bytes, a binary file object, "
        "a PIL image or a uint8 RGB array of shape (H, W, 3)"
    )


def _ignore(warning: str) -> None:
    """Stand in for a caller who does not want warnings."""


def _decode(file: BinaryIO, wish: _Wish) -> Image.Image:
    """Decode an image file; whatever a decoder throws is a fact about this photo, not a bug here."""
    try:
        with identify(file) as image:
            return _load(image, wish, scaled=True)
    except ImageError as error:
        completed = completed_progressive(file) if error.code == "truncated" else None
        if completed is None:
            raise
        wish.on_warning("truncated: the photo ends early and lacks its fine detail")
        return _decode(completed, wish)
    except Exception as error:
        if not is_over_limit(error):
            raise as_image_error(error) from error
    return _decode_png_pixels(file, wish)


def _decode_png_pixels(file: BinaryIO, wish: _Wish) -> Image.Image:
    """Decode a PNG whose texts or colour profile are larger than Pillow accepts."""
    pixels, profile = without_metadata(file)
    try:
        with identify(pixels) as image:
            if profile is not None:
                image.info["icc_profile"] = profile
            return _load(image, wish, scaled=True)
    except Exception as error:
        raise as_image_error(error) from error


def _load(image: Image.Image, wish: _Wish, *, scaled: bool) -> Image.Image:
    """Load, reduce and turn upright; ``scaled`` lets the decoder reduce, which changes ``image``."""
    _check_size(image.size, wish.max_pixels)
    done = 1
    factor = 0
    stored = image.size
    if scaled and image.format in ("JPEG", "MPO"):
        assert isinstance(image, ImageFile.ImageFile)
        width, height = image.size
        factor = _factor(image.size, _orientation(image), wish)
        image.draft(None, (width // factor, height // factor))
        done = round(width / image.width)  # the decoder may not be able to scale this photo
    with reserved(_peak_bytes(image, stored)):
        return _load_reserved(image, wish, factor, done)


def _peak_bytes(image: Image.Image, stored: tuple[int, int]) -> int:
    """Return about how many bytes decoding takes, pixels and what is made of them before they are reduced.

    Args:
        image: opened, not loaded; its size is that which the decoder will give.
        stored: (width, height) in the file.
    """
    held = _BYTES_PER_PIXEL.get(image.mode, 4)
    # Decoders of these hand over whole frames; other modes are converted before they are reduced.
    copied = image.format in ("WEBP", "AVIF", "HEIF", "GIF") or image.mode not in ("L", "RGB", "RGBA", "CMYK")
    wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    peak = image.width * image.height * (held + (16 if wide else 4 if copied else 0))
    # A progressive JPEG keeps two bytes for every coefficient of the whole photo.
    waves = 2 * len(image.getbands()) if image.info.get("progressive") else 0
    return peak + stored[0] * stored[1] * waves


def _load_reserved(image: Image.Image, wish: _Wish, factor: int, done: int) -> Image.Image:
    loaded = image
    try:
        image.load()
    except Exception as error:
        if is_over_limit(error):
            raise
        problem = as_image_error(error)
        part = decoded_part(image) if problem.code in ("truncated", "damaged") else None
        if part is None:
            raise problem from error
        loaded, share = part
        wish.on_warning(f"{problem.code}: only {int(share * 100)} % of the photo's rows could be read")
    orientation = _orientation(image)
    # Only now, because Pillow turns a TIFF upright while loading it.
    factor = factor or _factor(loaded.size, orientation, wish)
    return _finish(loaded, factor // done, orientation, wish)


def _factor(stored: tuple[int, int], orientation: int, wish: _Wish) -> int:
    if not all(wish.target):
        return 1
    # Orientations 5 to 8 swap the sides; the factor must be that of the upright photo.
    target = wish.target[::-1] if orientation >= 5 else wish.target
    return reduction_factor(stored, target, wish.reducing_gap)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata is no reason to refuse a photo
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _finish(image: Image.Image, factor: int, orientation: int, wish: _Wish) -> Image.Image:
    """Return a new RGB image, reduced by what is left of the factor, upright, without metadata."""
    result = to_rgb(image, factor, wish.on_warning)
    if orientation != 1:
        result = result.transpose(_UPRIGHT[orientation])
    result = result.copy() if result is image else result
    # Left in place, an orientation would be applied again by whoever reads the result as a photo.
    result.info = {}
    return result


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("too_small", f"has {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            "too_many_pixels",
            f"has {width} x {height} pixels, more than the limit of {max_pixels}; "
            "raise max_pixels if the photo is genuine",
        )
