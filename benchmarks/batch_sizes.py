"""Processor time of an image stage against the number of photos it is given at once.

    python benchmarks/batch_sizes.py [--bundle DIR] [--rounds 15]

One thread, as `predict_many` runs it; sizes interleaved; the median of each size, in milliseconds per photo
and as ratio to one photo at a time. Processor time, so that what else the machine does counts less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from cascade.bundle.manifest import Bundle
from cascade.inference.pipeline import Pipeline

SIZES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    session = Pipeline.of(bundle).session(bundle.general)
    spec = bundle.general.input
    assert spec is not None
    images = np.random.default_rng(0).integers(
        0, 256, (max(SIZES), spec.height, spec.width, 3), dtype=np.uint8
    )
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(arguments.rounds):
        for size in SIZES:
            session.run({"image": images[:size]})  # memory for this size is there from now on
            started = time.thread_time()
            session.run({"image": images[:size]})
            seconds[size].append((time.thread_time() - started) / size)
    print("photos at once   ms per photo   ratio")
    one = statistics.median(seconds[1])
    for size, values in seconds.items():
        middle = statistics.median(values)
        print(f"{size:14d}   {middle * 1e3:12.2f}   {middle / one:5.2f}")


if __name__ == "__main__":
    main()
