"""Makes the pixels that a graph takes from an upright RGB image.

Normalisation (mean, standard deviation) is inside each graph, so the only thing that another embedding
has to repeat is this file: crop, bicubic antialiased resize, RGB, uint8.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from PIL import Image

from cascade.arrays import Pixels
from cascade.validated import Validated

__all__ = ["INTERPOLATIONS", "LARGEST_SCALED", "InputSpec", "decoding_of", "prepare"]

INTERPOLATIONS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}

#: A photo of 20000 x 10 pixels would be resized to 450,000 x 224 before its middle is cut out. From this many
#: times the input on, only the middle is computed. For other photos that would not be the same to the
#: last bit.
LARGEST_SCALED: Final = 64

#: Pixels that a photo may have between the two passes of a resize. Only a strip (10 x 1,000,000 pixels) has
#: more; its height is resized first.
_LARGEST_BETWEEN: Final = 2**24


Side = Annotated[int, msgspec.Meta(ge=8, le=4096)]


class InputSpec(Validated, frozen=True, forbid_unknown_fields=True):
    """What the input `image` of a graph looks like.

    Attributes:
        width: pixels.
        height: pixels.
        crop: ``"squash"`` resizes the whole photo to width x height and ignores its aspect ratio;
            ``"center"`` keeps the aspect ratio and takes the middle.
        crop_fraction: for ``"center"``, the share of the shorter side that stays (timm's ``crop_pct``).
        interpolation: a key of `INTERPOLATIONS`; always antialiased.
        colour: always ``"RGB"``.
        reducing_gap: how much larger than the input a photo must stay while it is decoded at a reduced
            scale, see `cascade.imaging.decoding.reduction_factor`.

    Raises:
        BundleError: when a value is outside its range.
    """

    width: Side
    height: Side
    crop: Literal["squash", "center"] = "squash"
    crop_fraction: Annotated[float, msgspec.Meta(ge=0.1, le=1)] = 1.0
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    colour: Literal["RGB"] = "RGB"
    reducing_gap: Annotated[float, msgspec.Meta(ge=1)] = 2.0

    @property
    def decode_target(self) -> tuple[int, int]:
        """(width, height) in pixels that a decoded photo is needed in, before the crop is taken."""
        fraction = self.crop_fraction if self.crop == "center" else 1.0
        return round(self.width / fraction), round(self.height / fraction)


def decoding_of(specs: Collection[InputSpec]) -> tuple[tuple[int, int], float]:
    """Return the ``target`` and ``reducing_gap`` with which one decode serves several graphs.

    The largest of each is taken, so a photo is decoded once even if the graphs see it at different sizes.
    """
    targets = [spec.decode_target for spec in specs]
    target = max(width for width, _ in targets), max(height for _, height in targets)
    return target, max(spec.reducing_gap for spec in specs)


def prepare(image: Image.Image, spec: InputSpec) -> Pixels:
    """Resize an upright RGB image to the input of a graph.

    Args:
        image: mode RGB, any size.
        spec: what the graph wants.

    Returns:
        uint8 of shape (height, width, 3).
    """
    resample = INTERPOLATIONS[spec.interpolation]
    size = (spec.width, spec.height)
    if spec.crop == "squash":
        return np.asarray(image if image.size == size else _resize(image, size, resample))
    scaled = _scaled_for_center(image.size, spec)
    left = round((scaled[0] - spec.width) / 2)
    top = round((scaled[1] - spec.height) / 2)
    if scaled[0] * scaled[1] > LARGEST_SCALED * spec.width * spec.height:
        across, down = image.width / scaled[0], image.height / scaled[1]
        box = (left * across, top * down, (left + spec.width) * across, (top + spec.height) * down)
        return np.asarray(_resize(image, size, resample, box))
    image = _resize(image, scaled, resample) if image.size != scaled else image
    return np.asarray(image.crop((left, top, left + spec.width, top + spec.height)))


def _resize(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Resize a part of an image, its width first and then its height, with every version of Pillow.

    Pillow rounds to uint8 between its two passes, so their order shows in the pixels: up to version 12 the
    width always came first, version 13 takes the height first for tall photos (python-pillow#9549). One call
    for each side fixes the order, because Pillow leaves out the pass of a side that stays as it is.

    Args:
        image: mode RGB.
        size: (width, height) of the result in pixels.
        resample: the filter.
        box: (left, top, right, bottom) of the part in pixels of ``image``; None takes all of it.
    """
    width, height = size
    left, top, right, bottom = box or (0, 0, image.width, image.height)
    if width * image.height > _LARGEST_BETWEEN:
        between = image.resize((image.width, height), resample, box=(0, top, image.width, bottom))
        return between.resize(size, resample, box=(left, 0, right, height))
    between = image.resize((width, image.height), resample, box=(left, 0, right, image.height))
    return between.resize(size, resample, box=(0, top, width, bottom))


def _scaled_for_center(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Return the (width, height) that a photo is resized to before its middle is cut out.

    As timm does it, from which the golden values in tests/reference come: for a square input like
    torchvision's ``Resize(int)``, which truncates; otherwise like timm's ``ResizeKeepRatio``, which rounds.
    """
    width, height = size
    wanted_width, wanted_height = (int(n / spec.crop_fraction) for n in (spec.width, spec.height))
    if spec.width == spec.height:
        short = min(size)
        return int(wanted_width * width / short), int(wanted_width * height / short)
    ratio = min(width / wanted_width, height / wanted_height)
    return round(width / ratio), round(height / ratio)
