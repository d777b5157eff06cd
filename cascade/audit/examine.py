"""Looks at one file: can it be read, what is odd about it, and what does the general model see in it.

A photo is read and decoded once. Its embedding is the mean of those of the photo and of its mirror image, so
that a mirrored copy has the same one.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from cascade.arrays import Float32s, Pixels
from cascade.bundle.manifest import Bundle
from cascade.errors import ImageError
from cascade.imaging.decoding import MAX_PIXELS, load_image
from cascade.imaging.formats import identify
from cascade.imaging.opening import open_photo
from cascade.imaging.preprocessing import decoding_of, prepare
from cascade.inference.pipeline import Pipeline

__all__ = ["SMALL_SIDE", "Examined", "Examiner", "Facts"]

#: Pixels of the longer side of the grey copy that pairs are compared with.
SMALL_SIDE: Final = 64
#: EXIF tags: orientation; width and height of the photo as its camera wrote it.
_ORIENTATION, _EXIF_IFD, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
#: Rows of one colour at the lower end count when they are neither black nor white: those are borders.
_BORDER: Final = (8, 247)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in a file, as plain values.

    Attributes:
        sha256: of its bytes; "" if they could not be read.
        code: key of `cascade.errors.IMAGE_ERROR_CODES` if it cannot be decoded, else "".
        message: why it cannot be decoded, or what was odd when it was.
        partial: whether only a part of it could be decoded.
        format: by its content, e.g. "JPEG"; "" if unknown.
        width: pixels, upright; 0 if unknown.
        height: likewise.
        bytes: of the file.
        grey: whether it has no colour.
        contrast: standard deviation of its grey values, 0..255, at the size that the model sees.
        sharpness: variance of the Laplacian at the size that the model sees.
        flat: share of its rows, from the lower end, that are of one and the same colour.
        exif: what is wrong with its EXIF data; "" if nothing.
    """

    sha256: str = ""
    code: str = ""
    message: str = ""
    partial: bool = False
    format: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    grey: bool = False
    contrast: float = 0.0
    sharpness: float = 0.0
    flat: float = 0.0
    exif: str = ""

    @property
    def readable(self) -> bool:
        """Whether it was decoded, at least in part."""
        return not self.code


@dataclass(frozen=True, slots=True)
class Examined:
    """A file with what the model sees in it.

    Attributes:
        facts: see `Facts`.
        embedding: (D,) of length 1; None if the file cannot be decoded.
        small: (h, w) grey, the longer side `SMALL_SIDE`; None likewise.
    """

    facts: Facts
    embedding: Float32s | None = None
    small: Pixels | None = None


class Examiner:
    """Examines files with the general model of a bundle. Thread-safe.

    Args:
        bundle: its general model gives the embeddings.

    Raises:
        BundleError: when the bundle is damaged.
    """

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.general.input is not None
        self._pipeline, self._stage = Pipeline.of(bundle), bundle.general
        self._spec = bundle.general.input
        self._target, self._gap = decoding_of((self._spec,))
        self._pipeline.session(self._stage)  # a damaged graph is noticed now

    def examine(self, path: str) -> Examined:
        """Return what a file holds; whatever is wrong with the file is a fact about it."""
        data = b""
        try:
            with open_photo(path) as file:
                data = file.read()
            return self._examine(data)
        except ImageError as error:
            digest = hashlib.sha256(data).hexdigest() if data or error.code == "empty" else ""
            known = _format_of(data)
            return Examined(Facts(digest, error.code, error.message, format=known, bytes=len(data)))

    def _examine(self, data: bytes) -> Examined:
        warnings: list[str] = []
        image = load_image(
            data,
            target=self._target,
            reducing_gap=self._gap,
            max_pixels=MAX_PIXELS,
            on_warning=warnings.append,
        )
        seen = prepare(image, self._spec)
        grey = np.asarray(Image.fromarray(seen).convert("L"), dtype=np.float32)
        damage = [text for text in warnings if text.startswith(("truncated", "damaged"))]
        facts = Facts(
            sha256=hashlib.sha256(data).hexdigest(),
            message="; ".join(text.partition(": ")[2] for text in damage or warnings),
            partial=bool(damage),
            bytes=len(data),
            grey=_is_grey(seen),
            contrast=float(grey.std()),
            sharpness=_sharpness(grey),
            flat=_flat_share(np.asarray(image)),
            **_header(data, image.size),
        )
        return Examined(facts, self._embedding(seen), _small(image))

    def _embedding(self, seen: Pixels) -> Float32s:
        both = np.stack([seen, seen[:, ::-1]])
        embedding = self._pipeline.session(self._stage).run_photos(both)["embedding"].mean(0)
        length = np.linalg.norm(embedding)
        return np.asarray(embedding / max(float(length), 1e-12), dtype=np.float32)


def _format_of(data: bytes) -> str:
    try:
        with identify(io.BytesIO(data)) as image:
            return image.format or ""
    except Exception:  # what is wrong with it was said when it was decoded
        return ""


def _header(data: bytes, decoded: tuple[int, int]) -> dict[str, Any]:
    """Return format, size in pixels and EXIF trouble, from the header; the pixels are not decoded again."""
    try:
        with identify(io.BytesIO(data)) as image:
            width, height = image.size
            if (width > height) != (decoded[0] > decoded[1]) and width != height:  # turned by its EXIF tag
                width, height = height, width
            return {
                "format": image.format or "",
                "width": width,
                "height": height,
                "exif": _exif_trouble(image),
            }
    except Exception:  # repaired while it was decoded
        return {"width": decoded[0], "height": decoded[1]}


def _exif_trouble(image: Image.Image) -> str:
    if not image.info.get("exif") and image.format != "TIFF":
        return ""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        camera = exif.get_ifd(_EXIF_IFD)
        written = camera.get(_WIDTH), camera.get(_HEIGHT)
    except Exception as error:
        return f"the EXIF data cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
    if orientation not in range(1, 9):
        return f"the EXIF orientation is {orientation!r}, which means nothing"
    turned = orientation >= 5 and written == image.size[::-1] and image.width != image.height
    if turned:
        return "EXIF says that it is to be turned, but it was turned already: it is shown on its side"
    return ""


def _is_grey(seen: Pixels) -> bool:
    channels = seen.astype(np.int16)
    apart = np.abs(channels - channels.mean(axis=2, keepdims=True)).max(axis=2)
    return bool(np.percentile(apart, 99) <= 6)


def _sharpness(grey: Float32s) -> float:
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).var())


def _flat_share(pixels: Pixels) -> float:
    last = pixels[-1, 0]
    if last.min() < _BORDER[0] or last.max() > _BORDER[1]:
        return 0.0
    differs = np.flatnonzero((pixels != last).any(axis=(1, 2)))
    first = int(differs[-1]) + 1 if len(differs) else 0
    return (len(pixels) - first) / len(pixels)


def _small(image: Image.Image) -> Pixels:
    scale = SMALL_SIDE / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC))
