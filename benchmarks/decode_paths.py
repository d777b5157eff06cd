"""How far the two ways of reducing a photo differ in the pixels that a graph sees.

    python benchmarks/decode_paths.py [--photos DIR]

A JPEG that comes as path, bytes or stream is reduced by its decoder (DCT scaling); one that comes as PIL
image or array has been decoded in full already and is reduced by averaging blocks. Both are compared after
preprocessing to 224 x 224, in grey levels of 0..255, with each other and with the exact resize of the full
photo, for several values of `reducing_gap`.

Photographs of 12 megapixels do not come with any package, so there are several kinds of photos: the sample
photographs of scikit-image and scikit-learn as they are; enlarged to 1, 3 and 12 megapixels (soft: no detail
at the scale of one pixel); enlarged to sides that the factor does not divide, where the last blocks are
incomplete and the picture is stretched by up to one block; and 12 megapixels laid out from many labelled
photographs, none of them scaled (sharp to the last pixel). The last needs the labelled photographs.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cascade.imaging.decoding import load_image
from cascade.imaging.preprocessing import InputSpec, prepare

GAPS = (1.0, 1.5, 2.0, 3.0)
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")


def samples() -> Iterator[Image.Image]:
    import skimage
    import sklearn

    folder = Path(skimage.__file__).parent / "data"
    paths = [folder / name for name in SAMPLES]
    paths += sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    for path in paths:
        with Image.open(path) as image:
            yield image.convert("RGB")


def enlarged(megapixels: float, remainder: int = 0) -> Iterator[Image.Image]:
    """Sides are multiples of 8, as those of cameras are, plus a remainder, as those of cropped photos are."""
    for image in samples():
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = tuple(round(side * scale / 8) * 8 + remainder for side in image.size)
        yield image.resize(size, Image.Resampling.LANCZOS)


def mosaics(folder: Path, count: int) -> Iterator[Image.Image]:
    """12 megapixels each: photographs side by side in rows, none of them scaled."""
    paths = sorted((folder / "photos" / "test").rglob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    position = 0
    for _ in range(count):
        canvas = Image.new("RGB", (4000, 3000))
        y = 0
        while y < canvas.height:
            x = tallest = 0
            while x < canvas.width:
                with Image.open(paths[order[position % len(paths)]]) as image:
                    canvas.paste(image.convert("RGB"), (x, y))
                    x, tallest = x + image.width, max(tallest, image.height)
                position += 1
            y += tallest
        yield canvas


def compare(photos: Iterator[Image.Image], gaps: tuple[float, ...]) -> dict[float, dict[str, np.ndarray]]:
    """Return gap -> name of the comparison -> absolute differences of all photos."""
    found: dict[float, dict[str, list[np.ndarray]]] = {gap: {} for gap in gaps}
    for photo in photos:
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=92)
        with Image.open(buffer) as image:
            decoded = np.asarray(image)
        exact = prepare(load_image(decoded), InputSpec(224, 224)).astype(int)
        for gap in gaps:
            spec = InputSpec(224, 224, reducing_gap=gap)
            options = {"target": spec.decode_target, "reducing_gap": gap}
            scaled = prepare(load_image(buffer.getvalue(), **options), spec).astype(int)  # type: ignore[arg-type]
            averaged = prepare(load_image(decoded, **options), spec).astype(int)  # type: ignore[arg-type]
            for name, difference in (
                ("path-array", scaled - averaged),
                ("path-exact", scaled - exact),
                ("array-exact", averaged - exact),
            ):
                found[gap].setdefault(name, []).append(np.abs(difference))
    return {gap: {k: np.stack(v) for k, v in names.items()} for gap, names in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("CASCADE_PHOTOS", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--photos", type=Path, default=default, help="the labelled photographs")
    photos = parser.parse_args().photos
    kinds = {
        "as they are": samples(),
        "enlarged, 1 MP": enlarged(1),
        "enlarged, 3 MP": enlarged(3),
        "enlarged, 12 MP": enlarged(12),
        "12 MP, odd sides": enlarged(12, remainder=1),
    }
    if (photos / "photos" / "test").is_dir():
        kinds["mosaic, 12 MP"] = mosaics(photos, 4)
    else:
        print(f"no labelled photographs at {photos}; the mosaics are left out\n")
    print("absolute difference in 224 x 224 pixels, grey levels: mean / 99th percentile / largest\n")
    print(f"{'photos':16} {'gap':>4}  {'path - array':>16}  {'path - exact':>16}  {'array - exact':>16}")
    for kind, images in kinds.items():
        for gap, names in compare(images, GAPS).items():
            cells = [f"{d.mean():.2f} / {np.percentile(d, 99):.0f} / {d.max()}" for d in names.values()]
            print(f"{kind:16} {gap:4}  " + "  ".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
