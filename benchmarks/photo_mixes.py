"""Makes mixes of JPEG photos, like those that people have, from real photographs, to measure speed on.

    camera       4000 x 3000, quality 93: what a phone or a camera writes
    camera_soft  the same without grain, quality 85: half a megabyte
    web          1152 x 864, quality 90: what a site shows
    thumbnail    256 px on the longer side, quality 90

All 4:2:0, baseline. There is no package of 12-megapixel photographs, so small photographs are enlarged; an
enlarged photo is soft and cheaper to decode than a genuine one, so camera photos are given the fine grain of
a sensor, which brings their files to the 2 to 3 MB that phones write. Decoding at reduced scale saves
everything but the entropy decoding of those megabytes, so both kinds are measured. What the photo shows,
and so which experts are asked about it, stays that of the photograph.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

MIXES = ("camera", "camera_soft", "web", "thumbnail")
MEGAPIXELS = {"camera": 12.0, "camera_soft": 12.0, "web": 1.0}
_SIZES = {"camera": (4000, 3000), "camera_soft": (4000, 3000), "web": (1152, 864)}
_QUALITY = {"camera": 93, "camera_soft": 85, "web": 90, "thumbnail": 90}
#: Standard deviation of the grain, grey levels.
_GRAIN = 3.0


def sources(folder: Path) -> list[Path]:
    """Return photographs in a fixed, mixed order: the labelled test photos, else those of scikit-image.

    Few photos of a kind that the bundle does not know are a poor substitute (experts are asked about nearly
    all of them), so a folder that is there but holds no test photos is refused.
    """
    found = sorted((folder / "photos" / "test").rglob("*.jpg"))
    if not found and folder.is_dir():
        raise SystemExit(
            f"{folder}: holds no photos/test/LABEL/*.jpg; name the folder that does, with --photos"
        )
    if not found:
        print(f"{folder}: is not there; measuring with a few photos of scikit-image", file=sys.stderr)
        import skimage

        data = Path(skimage.__file__).parent / "data"
        names = ("coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")
        found = [data / name for name in names]
    return [found[i] for i in np.random.default_rng(5).permutation(len(found))]


def default_photos() -> Path:
    return Path(os.environ.get("CASCADE_PHOTOS", Path(__file__).parents[2] / "shared" / "data"))


def make_mix(mix: str, count: int, photographs: Sequence[Path], folder: Path) -> list[Path]:
    """Write photos that are not there yet and return the paths of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(6)
    grain = None
    if mix == "camera":
        grain = random.normal(0.0, _GRAIN, (3000, 4000, 1)).round().astype(np.int16)

    def make(job: tuple[int, Path]) -> Path:
        number, source = job
        path = folder / f"{number:05d}.jpg"
        if path.is_file():
            return path
        with Image.open(source) as image:
            photo = image.convert("RGB")
        if mix == "thumbnail":
            scale = 256 / max(photo.size)
            size = (round(photo.width * scale), round(photo.height * scale))
        else:
            # Upright photos stay upright: a camera is turned, a picture is not squashed.
            size = _SIZES[mix] if photo.width >= photo.height else _SIZES[mix][::-1]
        photo = photo.resize(size, Image.Resampling.LANCZOS)
        if grain is not None:
            shifted = np.roll(grain, (37 * number, 53 * number), (0, 1))
            rows = shifted if photo.width > photo.height else shifted.transpose(1, 0, 2)
            photo = Image.fromarray((np.asarray(photo) + rows).clip(0, 255).astype(np.uint8))
        part = path.with_suffix(".part")
        photo.save(part, "JPEG", quality=_QUALITY[mix], subsampling="4:2:0")
        part.replace(path)
        return path

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, enumerate(islice(cycle(photographs), count))))
