"""Checks what callers of the Python API pass, and says in words what is wrong with it."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from cascade.errors import UsageError

__all__ = ["count", "photos", "share"]


def count(name: str, value: Any) -> int:
    """Return a whole number of at least 1; raises `UsageError` for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} is {value!r}, a {type(value).__name__}; it must be a whole number")
    if number < 1:
        raise UsageError(f"{name} is {number}; it must be at least 1")
    return number


def share(name: str, value: Any) -> float | None:
    """Return a number from 0 to 1, or None as it is; raises `UsageError` for anything else."""
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} is {value!r}, a {type(value).__name__}; it must be a number from 0 to 1")
    if not 0 <= float(value) <= 1:
        raise UsageError(f"{name} is {value}; it must be a number from 0 to 1")
    return float(value)


def photos(images: Any) -> Iterator[Any]:
    """Return an iterator of photos; one photo alone, whose parts are no photos, is refused.

    Raises:
        UsageError: when ``images`` is one photo, or nothing that can be iterated.
    """
    one = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
    if one or hasattr(images, "read") or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise UsageError(
            f"predict_many takes several photos and got one {type(images).__name__}; use predict, or give a "
            "list: predict_many([photo]); for a folder: predict_many(sorted(Path(folder).glob('*.jpg')))"
        )
    if not isinstance(images, Iterable):
        raise UsageError(f"predict_many takes an iterable of photos, not {type(images).__name__}")
    return iter(images)
