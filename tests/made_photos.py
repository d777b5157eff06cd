"""Photos for tests that compare photos: patches in colour, other ones for every seed."""

from __future__ import annotations

import numpy as np
from PIL import Image


def scene(
    seed: int, size: tuple[int, int] = (160, 120), tint: tuple[int, int, int] | None = None
) -> Image.Image:
    """Return a picture of soft and sharp patches; ``tint`` makes its mean colour nearly that one."""
    random, (width, height) = np.random.default_rng(seed), size
    picture = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size)
    for _ in range(14):
        left, top = random.integers(0, width - 30), random.integers(0, height - 24)
        shape, colour = random.integers(8, 40, 2), random.integers(0, 256, 3)
        patch = Image.new("RGB", (int(shape[0]), int(shape[1])), tuple(int(value) for value in colour))
        picture.paste(patch, (int(left), int(top)))
    return picture if tint is None else Image.blend(picture, Image.new("RGB", size, tint), 0.7)
