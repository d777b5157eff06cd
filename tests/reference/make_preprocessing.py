"""Write preprocessing.npz: what timm's own evaluation transform makes of one photo, cut to many shapes.

    python tests/reference/make_preprocessing.py        # needs the extra `train`

tests/test_preprocess.py compares `cascade.imaging.preprocessing.prepare` with it, so the light install, too,
is tested against code that is not ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_transform

HERE = Path(__file__).parent
PHOTO = HERE.parent / "data" / "coffee.jpg"

#: (width, height) that the photo is cut to, from its middle.
SIZES = [
    (600, 400),
    (224, 224),
    (225, 223),
    (300, 224),
    (224, 300),
    (100, 50),
    (600, 31),
    (37, 400),
    (20, 17),
]
#: Small inputs, so that the file stays small; two of the size that networks take.
SPECS: list[dict[str, Any]] = [
    {"width": 32, "height": 32, "crop": "squash", "crop_fraction": 1.0},
    {"width": 48, "height": 40, "crop": "squash", "crop_fraction": 1.0},
    {"width": 32, "height": 32, "crop": "center", "crop_fraction": 0.875},
    {"width": 33, "height": 33, "crop": "center", "crop_fraction": 1.0},
    {"width": 48, "height": 40, "crop": "center", "crop_fraction": 0.89},
]
LARGE: list[dict[str, Any]] = [
    {"width": 224, "height": 224, "crop": "squash", "crop_fraction": 1.0},
    {"width": 224, "height": 224, "crop": "center", "crop_fraction": 0.875},
]


def cut(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (photo.width - size[0]) // 2, (photo.height - size[1]) // 2
    return photo.crop((left, top, left + size[0], top + size[1]))


def reference(photo: Image.Image, spec: dict[str, Any]) -> np.ndarray:
    """Return timm's pixels, uint8 (H, W, 3), before it normalises them."""
    transform = create_transform(
        (3, spec["height"], spec["width"]),
        is_training=False,
        interpolation="bicubic",
        crop_mode=spec["crop"],
        crop_pct=spec["crop_fraction"],
        use_prefetcher=True,  # leaves the normalisation to the loader
    )
    return np.asarray(transform(photo)).transpose(1, 2, 0)


def main() -> None:
    photo = Image.open(PHOTO).convert("RGB")
    cases = [{"size": size, "spec": spec} for size in SIZES for spec in SPECS]
    cases += [{"size": SIZES[0], "spec": spec} for spec in LARGE]
    arrays = {str(i): reference(cut(photo, c["size"]), c["spec"]) for i, c in enumerate(cases)}
    np.savez_compressed(HERE / "preprocessing.npz", cases=json.dumps(cases), **arrays)


if __name__ == "__main__":
    main()
