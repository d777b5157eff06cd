"""Holds decoded photos and makes the input of a stage for those that the stage is to see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from PIL import Image

from cascade.arrays import Bools, Pixels
from cascade.imaging.preprocessing import InputSpec, prepare

__all__ = ["PhotoInputs"]

#: Decoded photos of up to so many pixels are kept until an expert asks for them. A reduced photo has a few
#: hundred thousand; only strips and panoramas have more, and their inputs are made at once.
_KEPT_PIXELS: Final = 2**20


class PhotoInputs(Mapping[InputSpec, Pixels]):
    """Input specification -> uint8 (N, H, W, 3), made when it is first asked for.

    Most photos are never shown to an expert, and resizing a photo costs as much as decoding it.

    Args:
        specs: every specification that a stage has; the first is made at once.
    """

    def __init__(self, specs: Sequence[InputSpec]) -> None:
        self._specs = tuple(specs)
        self._images: list[Image.Image | None] = []
        self._made: dict[InputSpec, list[Pixels | None]] = {spec: [] for spec in self._specs}

    def add(self, image: Image.Image) -> None:
        """Take one more photo: upright, RGB, as `cascade.imaging.decoding.load_image` returns it."""
        keep = image.width * image.height <= _KEPT_PIXELS
        for place, spec in enumerate(self._specs):
            self._made[spec].append(prepare(image, spec) if place == 0 or not keep else None)
        done = not keep or len(self._specs) == 1
        self._images.append(None if done else image)

    def __getitem__(self, spec: InputSpec) -> Pixels:
        """Return the input of all photos."""
        return self.rows(spec, np.ones(len(self._images), dtype=np.bool_))

    def rows(self, spec: InputSpec, chosen: Bools) -> Pixels:
        """Return the input of the chosen photos, (n, H, W, 3).

        Args:
            spec: one of those given.
            chosen: (N,), at least one of them true.
        """
        made = self._made[spec]
        rows = []
        for place in np.flatnonzero(chosen):
            pixels = made[place]
            if pixels is None:
                image = self._images[place]
                assert image is not None  # kept as long as an input is missing
                pixels = made[place] = prepare(image, spec)
            rows.append(pixels)
        return np.stack(rows)

    def __iter__(self) -> Iterator[InputSpec]:
        """Yield the specifications; none without photos."""
        return iter(self._specs if self._images else ())

    def __len__(self) -> int:
        return len(self._specs) if self._images else 0
