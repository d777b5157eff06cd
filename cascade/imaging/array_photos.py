"""Turns arrays that callers pass as photos into images, and says how to convert those that are not read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cascade.errors import ImageError, UsageError

__all__ = ["TENSOR_ADVICE", "image_of"]

TENSOR_ADVICE: Final = (
    "a torch tensor is not read; give an array (H, W, 3); for a tensor (3, H, W) from 0 to 1: "
    "`tensor.permute(1, 2, 0).mul(255).round().byte().cpu().numpy()`"
)
_CHANNELS: Final = (1, 3, 4)


def image_of(array: npt.NDArray[Any]) -> Image.Image:
    """Return the RGB image of an array.

    Args:
        array: uint8, of shape (H, W, 3) RGB or (H, W) grey; copied.

    Raises:
        ImageError: ``too_small``, when a side is 0.
        UsageError: for any other type or shape, with the expressions that convert it.
    """
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise UsageError(
            f"an array must be uint8 of shape (H, W, 3) RGB or (H, W) grey, not {array.dtype} {array.shape}; "
            + "; then ".join(_conversions(array))
        )
    if 0 in array.shape:
        raise ImageError("too_small", f"the array has shape {array.shape}")
    image = Image.fromarray(np.ascontiguousarray(array))
    return image.convert("RGB") if grey else image


def _conversions(array: npt.NDArray[Any]) -> list[str]:
    """Return the steps that turn an array into one that is read, each as Python between backticks."""
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "biuf":
        return ["this is no photo"]
    steps = []
    if array.dtype.kind == "f":
        steps.append(
            "for values from 0 to 1 use `(array * 255).round().astype('uint8')`, "
            "for values from 0 to 255 `array.round().astype('uint8')`"
        )
    elif array.dtype == np.bool_:
        steps.append("turn booleans into grey levels: `array.astype('uint8') * 255`")
    elif array.dtype == np.uint16:
        steps.append("keep the upper 8 of 16 bits: `(array >> 8).astype('uint8')`")
    elif array.dtype != np.uint8:
        steps.append("for values from 0 to 255 use `array.astype('uint8')`")
    if array.ndim == 4:
        if array.shape[3] not in _CHANNELS and array.shape[1] in _CHANNELS:
            steps.append("move the channels last: `array.transpose(0, 2, 3, 1)`")
        return [*steps, "give the photos of a batch one by one: predict_many(array)"]
    channels = array.shape[2] if array.ndim == 3 else 3
    if channels not in _CHANNELS and array.shape[0] in _CHANNELS:
        steps.append("move the channels last: `array.transpose(1, 2, 0)`")
        channels = array.shape[0]
    if channels == 1:
        steps.append("leave the last axis out: `array[:, :, 0]`")
    elif channels == 4:
        steps.append("leave alpha out: `array[:, :, :3]`, or put it on white: `Image.fromarray(array)`")
    elif channels != 3:
        return ["this is no photo"]
    return steps
