"""Chooses the decoder that reads a file, and turns its complaints into an `ImageError`."""

from __future__ import annotations

import functools
import importlib
import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final

from PIL import Image, ImageFile

from cascade.errors import ImageError
from cascade.imaging.raw_photos import open_raw, raw_kind

__all__ = ["FORMATS", "as_image_error", "identify", "reason"]

#: Formats that are read, recognised by content and not by file name. The list is closed on purpose: Pillow
#: knows formats that start other programs (EPS) or that nobody keeps photos in. HEIF needs the extra `heic`.
FORMATS: Final = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")

_PLUGINS: Final = {
    "JPEG": "JpegImagePlugin",  # opens MPO as well
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "TIFF": "TiffImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "AVIF": "AvifImagePlugin",
}
_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

#: First bytes of files that people take for photos; said by name, so that they know what to convert.
_UNSUPPORTED: Final = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "a Photoshop document",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
}
_DAMAGED: Final = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")

_Decoder = tuple[Callable[..., ImageFile.ImageFile], Callable[[bytes], bool | str]]


def identify(file: BinaryIO) -> Image.Image:
    """Open an image file by its content, whatever it is called; its pixels are not decoded yet.

    `Image.open` does the same, but it holds photos to a limit that is one for the whole process and
    warns about genuine photos from 89 megapixels on; our limit is a parameter of `load_image`.

    Raises:
        ImageError: when there is nothing in it that can be decoded.
        Exception: whatever else a decoder throws; see `as_image_error`.
    """
    file.seek(0)
    head = file.read(32)
    if not head:
        raise ImageError("empty", "the file is empty")
    kind = raw_kind(file, head)
    if kind is not None:  # before Pillow, which would take a thumbnail in it for the photo
        return open_raw(file, kind)
    try:
        for create, accept in _decoders():
            if accept(head) is True:
                file.seek(0)
                # What Pillow, too, takes to mean "not mine after all".
                with suppress(SyntaxError, IndexError, TypeError, struct.error):
                    return create(file, "")
        raise _unidentified(head)
    except Exception as error:
        # Decoders that want the whole file before they say anything call a cut-off one invalid.
        if _is_cut_off(file, head):
            raise ImageError("truncated", "the file ends before the image does") from error
        raise


def _is_cut_off(file: BinaryIO, head: bytes) -> bool:
    """Return whether the file is shorter than its own header says; False where no header says it."""
    length = file.seek(0, io.SEEK_END)
    if head[:4] == b"RIFF":
        return length < int.from_bytes(head[4:8], "little") + 8
    if head[:4] in (b"II*\0", b"MM\0*"):  # where the first directory is
        return length < int.from_bytes(head[4:8], "little" if head[:2] == b"II" else "big") + 2
    if head[4:8] == b"ftyp":
        end = 0
        while end + 8 <= length:
            file.seek(end)
            box = int.from_bytes(file.read(4))
            if box < 8:  # 0: up to the end of the file; 1: a size of 64 bits, which no photo needs
                return False
            end += box
        return end > length
    return False


@functools.cache
def _decoders() -> tuple[_Decoder, ...]:
    """Return (opener, test of the first bytes) of every decoder of this installation."""
    found: list[_Decoder] = []
    for name, module in _PLUGINS.items():
        with suppress(ImportError):  # Pillow 11.0 to 11.2 have no AVIF
            importlib.import_module(f"PIL.{module}")
            create, accept = Image.OPEN[name]
            assert accept is not None
            found.append((create, accept))
    return (*found, (_open_heif, _is_heif))


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _open_heif(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ImageError(
            "unsupported", "is HEIC/HEIF, which needs: pip install 'cascade-vision[heic]'"
        ) from error
    image: ImageFile.ImageFile = pillow_heif.HeifImageFile(file, name)
    return image


def _unidentified(head: bytes) -> ImageError:
    for start, name in _UNSUPPORTED.items():
        if head.startswith(start):
            return ImageError("unsupported", f"is {name}, which is not read; convert it to JPEG or PNG")
    if head.startswith(_DAMAGED) or head[4:8] == b"ftyp":
        return ImageError("damaged", "the beginning of the image file is damaged or of an unknown kind")
    return ImageError("not_an_image", "the content is not an image in a supported format")


def as_image_error(error: Exception) -> ImageError:
    """Return what a decoder's exception says about the photo."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImageError):
        return error
    if isinstance(error, MemoryError):
        return ImageError("not_enough_memory", "needs more memory than there is")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("too_many_pixels", text)
    if isinstance(error, OSError) and error.errno is not None:  # from the disk; decoders give no number
        return ImageError("unreadable", f"cannot be read: {reason(error)}")
    if any(sign in text.lower() for sign in ("truncated", "end of file")) or isinstance(error, EOFError):
        return ImageError("truncated", f"the image ends early ({text})")
    return ImageError("damaged", f"the image data is damaged ({text})")


def reason(error: Exception) -> str:
    """Return an exception's text without the file name that the system puts into it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
