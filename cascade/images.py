"""Reading photos. In: a path, bytes, a binary file object, a PIL image or an RGB array. Out: one upright
RGB `PIL.Image`, already reduced towards the size that is needed.

Every photo is decoded once, by `load_image`, whatever it is used for: prediction, evaluation and the
evaluation passes of training share it, so that preprocessing cannot differ between them.

Large photos are reduced by a whole factor while they are decoded (JPEG: at a reduced DCT scale, which
is several times faster; everything else: by averaging blocks of pixels). The factor depends only on the
size of the photo and on the bundle, so it is part of the contract and any other embedding can repeat it.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from cascade.errors import ImageError, UsageError

__all__ = ["FORMATS", "MAX_PIXELS", "ImageSource", "load_image", "reduction_factor"]

#: What `load_image` accepts.
ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[Any]
)

#: Decoders that may be tried, by content and not by file name. The list is closed on purpose: Pillow
#: knows formats that start other programs (EPS) or that nobody keeps photos in.
FORMATS: Final = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")

#: Photos with more pixels than this are refused (the limit at which Pillow itself gives up).
MAX_PIXELS: Final = 178_956_970

_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_SRGB: Final = ImageCms.createProfile("sRGB")


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
) -> Image.Image:
    """Decode one photo to upright RGB.

    EXIF orientation is applied, embedded colour profiles are converted to sRGB, transparency is put on
    white, 16-bit grey is scaled to 8 bits, and of an animation the first frame is taken.

    Args:
        source: a path, the bytes of an image file, a binary file object (read from its position), a
            PIL image (not changed), or an array, uint8, of shape (H, W, 3) RGB or (H, W) grey.
        target: (width, height) in pixels that will be needed; (0, 0) means full resolution.
        reducing_gap: see `reduction_factor`.
        max_pixels: photos with more pixels are refused before they are decoded.

    Returns:
        An image of mode RGB. Its size is that of the photo divided by the reduction factor, rounded up.

    Raises:
        ImageError: when this photo cannot be used; its code says why.
        UsageError: when ``source`` is of a type that is no photo at all.
    """
    if isinstance(source, np.ndarray):
        return _reduce(_from_array(source), target, reducing_gap, max_pixels)
    if isinstance(source, Image.Image):
        try:
            return _reduce(_to_upright_rgb(source.copy()), target, reducing_gap, max_pixels)
        except ImageError:
            raise
        except Exception as error:  # a lazily opened PIL image is decoded here, see _decode
            raise _as_image_error(error) from error
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), target, reducing_gap, max_pixels)
    if isinstance(source, str | os.PathLike):
        with _open_file(source) as file:
            return _decode(file, target, reducing_gap, max_pixels)
    if hasattr(source, "read"):
        return _decode(_as_binary(source), target, reducing_gap, max_pixels)
    raise UsageError(
        f"cannot read a photo from {type(source).__name__}; give a path, bytes, a binary file object, "
        "a PIL image or a uint8 RGB array of shape (H, W, 3)"
    )


def _open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; every reason why that fails becomes an `ImageError`."""
    try:
        # A named pipe would block for ever and a device never ends, so only regular files are opened.
        mode = os.stat(path).st_mode  # noqa: PTH116 - paths may be bytes-like os.PathLike
        if stat.S_ISDIR(mode):
            raise ImageError("is_directory", "is a folder; give its photos, or the folder to `classify`")
        if not stat.S_ISREG(mode):
            raise ImageError("unreadable", "is not a regular file")
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise ImageError("not_found", "no such file") from error
    except PermissionError as error:
        raise ImageError("not_permitted", "permission denied") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError("unreadable", f"cannot be read: {error}") from error


def _as_binary(source: BinaryIO) -> BinaryIO:
    """Return a seekable binary file; a stream that cannot seek is read into memory."""
    try:
        if source.seekable() and source.tell() == 0 and isinstance(source.read(0), bytes):
            return source
        data = source.read()
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"the file object could not be read: {error}") from error
    if not isinstance(data, bytes):
        raise UsageError("the file object yields text; open it in binary mode ('rb')")
    return io.BytesIO(data)


def _decode(file: BinaryIO, target: tuple[int, int], reducing_gap: float, max_pixels: int) -> Image.Image:
    try:
        with Image.open(file, formats=_registered_formats()) as image:
            _check_size(image.size, max_pixels)
            # Orientations 5 to 8 swap the sides; the factor must be that of the upright photo.
            swapped = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            wanted = target[::-1] if swapped else target
            if image.format in ("JPEG", "MPO") and all(wanted):
                factor = reduction_factor(image.size, wanted, reducing_gap)
                if factor > 1:
                    assert isinstance(image, ImageFile.ImageFile)
                    full = image.size
                    image.draft(None, (full[0] // factor, full[1] // factor))
                    # The rest of the reduction (none, unless the decoder could not scale) follows.
                    done = round(full[0] / image.size[0])
                    upright = _to_upright_rgb(image)
                    return upright if done >= factor else upright.reduce(factor // done)
            upright = _to_upright_rgb(image)
        return _reduce(upright, target, reducing_gap, max_pixels)
    except (ImageError, UsageError):
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(file) from error
    except Exception as error:  # whatever a decoder throws is a fact about this photo, not a bug here
        raise _as_image_error(error) from error


def _registered_formats() -> tuple[str, ...]:
    """Return the members of `FORMATS` for which this installation has a decoder."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reduce(image: Image.Image, target: tuple[int, int], reducing_gap: float, max_pixels: int) -> Image.Image:
    _check_size(image.size, max_pixels)
    if not all(target):
        return image
    factor = reduction_factor(image.size, target, reducing_gap)
    return image.reduce(factor) if factor > 1 else image


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


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        image = _to_srgb(image, profile)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        wide = np.asarray(image).astype(np.int64)
        # Pillow opens some 16-bit files as 32-bit `I`; both hold values up to 65535.
        return Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert from an embedded colour profile; a profile that is damaged or misfits is ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        plain = image.convert("RGB") if alpha is not None else image
        converted = ImageCms.profileToProfile(plain, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if converted is None:
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise UsageError(
            f"an array must be uint8 of shape (H, W, 3) RGB or (H, W) grey, not {array.dtype} "
            f"{array.shape}; scale floats with (array * 255).astype('uint8') and move channels last"
        )
    if 0 in array.shape:
        raise ImageError("too_small", f"the array has shape {array.shape}")
    image = Image.fromarray(np.ascontiguousarray(array))
    return image.convert("RGB") if grey else image


def _unidentified(file: BinaryIO) -> ImageError:
    file.seek(0)
    head = file.read(16)
    if not head:
        return ImageError("empty", "the file is empty")
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return ImageError("unsupported", "is HEIC/HEIF, which needs: pip install 'cascade-vision[heic]'")
    if head[:2] == b"\xff\xd8" or head[:8] == b"\x89PNG\r\n\x1a\n":
        return ImageError("damaged", "the image header is damaged")
    return ImageError("not_an_image", "the content is not an image in a supported format")


def _as_image_error(error: Exception) -> ImageError:
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("too_many_pixels", text)
    if isinstance(error, PermissionError):
        return ImageError("not_permitted", "permission denied")
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return ImageError("truncated", f"the image ends early ({text})")
    return ImageError("damaged", f"the image data is damaged ({text})")
