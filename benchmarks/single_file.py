"""Does the single file give the package's answers, and what does it cost?

    python benchmarks/single_file.py PHOTOS... [--count 1000]

Every photo is decoded once at full size; the package and the single file get the same array. Times are taken
in turns, one thread each, so that what else the machine does falls on both; the median ratio is what counts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cascade import Bundle, Cascade
from cascade.errors import ImageError
from cascade.export.single_file import single_file
from cascade.imaging.decoding import load_image
from cascade.inference.session import GraphSession
from cascade.onnx_runtime import ort

_TOLERANCE = 1e-3
_TURNS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--bundle", type=Path)
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    session = _session(single_file(bundle).SerializeToString())
    paths = sorted(path for folder in arguments.photos for path in _files(folder))
    random.Random(0).shuffle(paths)
    print(json.dumps(_agreement(bundle, session, paths[: arguments.count]), indent=1))
    print(json.dumps(_cost(bundle, session, paths), indent=1))
    return 0


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]


def _session(content: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _agreement(bundle: Bundle, session: ort.InferenceSession, paths: list[Path]) -> dict[str, Any]:
    cascade = Cascade(bundle, variant="exact", workers=1)
    metadata = session.get_modelmeta().custom_metadata_map
    answers, reasons = json.loads(metadata["answers"]), json.loads(metadata["reasons"])
    photos, worst, wrong, sizes, asked = 0, 0.0, [], set(), 0
    for path in paths:
        try:
            pixels = np.asarray(load_image(path))
        except ImageError:
            continue
        expected = cascade.predict(pixels)
        found = dict(
            zip((o.name for o in session.get_outputs()), session.run(None, {"image": pixels}), strict=True)
        )
        answer, reason = answers[found["answer"][0]], reasons[found["reason"][0]]
        difference = abs(float(found["confidence"][0]) - expected.confidence)
        if (answer, reason) != (expected.label, expected.reason) or not difference <= _TOLERANCE:
            wrong.append(
                [
                    path.name,
                    list(pixels.shape[:2]),
                    answer,
                    expected.label,
                    reason,
                    expected.reason,
                    difference,
                ]
            )
        photos, worst, asked = photos + 1, max(worst, difference), asked + bool(found["asked"].any())
        sizes.add(pixels.shape[:2])
    return {
        "photos": photos,
        "sizes": len(sizes),
        "with_experts_asked": asked,
        "largest_difference_of_confidence": worst,
        "disagreements": wrong,
    }


def _cost(bundle: Bundle, session: ort.InferenceSession, paths: list[Path]) -> dict[str, Any]:
    spec = bundle.general.input
    assert spec is not None
    nobody = {"cost_weight": np.array([np.inf])}
    small = np.asarray(load_image(paths[0]).resize((spec.width, spec.height)))
    outputs = ["logits", "embedding"]
    general = GraphSession(bundle.folder / bundle.general.file, [bundle.general.takes], outputs)
    alone = _ratio(
        lambda: session.run(None, {"image": small, **nobody}), lambda: general.run({"image": small[None]})
    )
    metadata = {"nobody_asked_over_general_alone": alone}
    cascade = Cascade(bundle, variant="exact", workers=1, ask="never")
    for width, height in ((640, 480), (1600, 1200), (4000, 3000)):
        photo = np.asarray(load_image(paths[0]).resize((width, height)))
        metadata[f"nobody_asked_over_package_{width}x{height}"] = _ratio(
            lambda photo=photo: session.run(None, {"image": photo, **nobody}),
            lambda photo=photo: cascade.predict(photo),
        )
    return metadata


def _ratio(one: Callable[[], Any], other: Callable[[], Any]) -> float:
    """Return the median over turns of time of one / time of the other, run next to each other."""
    ratios = []
    for _ in range(_TURNS):
        started = time.perf_counter()
        one()
        between = time.perf_counter()
        other()
        ratios.append((between - started) / (time.perf_counter() - between))
    return round(statistics.median(ratios), 3)


if __name__ == "__main__":
    sys.exit(main())
