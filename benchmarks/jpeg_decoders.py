"""Compares decoders of JPEG at reduced scale by the processor time that they take per photo.

    pip install simplejpeg pyvips pyvips-binary
    python benchmarks/jpeg_decoders.py [--count 12] [--rounds 5]

Pillow's `draft` as cascade uses it, simplejpeg (carries libjpeg-turbo; exact, and with its fast flags) and
pyvips (shrink on load), each decoding bytes in memory to an RGB picture of the same reduced size; and the
resize that follows. What is not installed is left out. Processor time, so that what else the machine does
counts less.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photo_mixes import MIXES, default_photos, make_mix, sources
from PIL import Image

from cascade import Bundle
from cascade.imaging.decoding import reduction_factor

Decoder = Callable[[bytes, int], object]


def pillow(data: bytes, factor: int) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.draft(None, (image.width // factor, image.height // factor))
    image.load()
    return image


def decoders() -> dict[str, Decoder]:
    found: dict[str, Decoder] = {"Pillow draft": pillow}
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ImportError:
        print("simplejpeg is not installed and left out")
    else:

        def scaled(data: bytes, factor: int, fast: bool) -> object:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return simplejpeg.decode_jpeg(
                data,
                "RGB",
                fastdct=fast,
                fastupsample=fast,
                min_height=height // factor,
                min_width=width // factor,
                min_factor=1,
            )

        found["simplejpeg"] = lambda data, factor: scaled(data, factor, False)
        found["simplejpeg, fast flags"] = lambda data, factor: scaled(data, factor, True)
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    try:
        pyvips = importlib.import_module("pyvips")
    except (ImportError, OSError):
        print("pyvips is not installed and left out")
    else:
        pyvips.cache_set_max(0)
        found["pyvips shrink"] = lambda data, factor: pyvips.Image.new_from_buffer(
            data, "", shrink=factor, access="sequential"
        ).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=default_photos(), help="the labelled photographs")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "cascade-mixes")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    bundle = Bundle.load()
    target, gap = bundle.decode_target, bundle.reducing_gap
    known = decoders()
    photographs = sources(arguments.photos)
    milliseconds: dict[tuple[str, str], list[float]] = {}

    def timed(mix: str, name: str, job: Callable[[], object]) -> None:
        started = time.process_time()
        job()
        milliseconds.setdefault((mix, name), []).append((time.process_time() - started) * 1e3)

    for mix in MIXES:
        folder = arguments.scratch / f"{mix}-{arguments.count}"
        files = [path.read_bytes() for path in make_mix(mix, arguments.count, photographs, folder)]
        for _ in range(arguments.rounds):
            for data in files:
                factor = reduction_factor(Image.open(io.BytesIO(data)).size, target, gap)
                for name, decode in known.items():
                    timed(mix, name, lambda decode=decode, data=data, factor=factor: decode(data, factor))
                image = pillow(data, factor)
                timed(
                    mix,
                    "(bicubic resize)",
                    lambda image=image: np.asarray(image.resize(target, Image.Resampling.BICUBIC)),
                )
    names = list(dict.fromkeys(name for _, name in milliseconds))
    print(f"{'milliseconds (ratio to Pillow)':32}" + "".join(f"{mix:>18}" for mix in MIXES))
    for name in names:
        cells = []
        for mix in MIXES:
            middle = statistics.median(milliseconds[mix, name])
            ratio = middle / statistics.median(milliseconds[mix, names[0]])
            cells.append(f"{f'{middle:.2f} ({ratio:.2f})':>18}")
        print(f"{name:32}" + "".join(cells))


if __name__ == "__main__":
    main()
