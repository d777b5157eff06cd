"""Measures what a faster variant of a bundle costs in accuracy and calibration on labelled photos.

    python benchmarks/variant_accuracy.py [--bundle DIR] [--photos DIR] [--split test] [--json FILE]

Every variant of the bundle is evaluated on the same photos, by the code behind `cascade evaluate`: cascade's
top-1 accuracy and ECE, in points, and how far they are from the exact variant. Exit code 1 when a variant is
more than 0.2 points top-1 or 0.3 points ECE away: it should not be shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from photo_mixes import default_photos

from cascade import Bundle, Cascade
from cascade.evaluation.dataset import scan
from cascade.evaluation.evaluate import evaluate

LIMITS = {"accuracy": 0.2, "ece": 0.3}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--photos", type=Path, default=default_photos() / "photos")
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, help="take only this many photos, spread over the labels")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    photos = scan(arguments.photos).split(arguments.split)
    if arguments.count:
        photos = photos[:: max(1, len(photos) // arguments.count)]
    results: dict[str, dict[str, Any]] = {}
    for variant in bundle.variants:
        metrics = evaluate(Cascade(bundle, variant=variant), photos).measure("cascade")
        results[variant] = {"accuracy": 100 * metrics.accuracy, "ece": 100 * metrics.ece}
    exact = results[bundle.variants[0]]
    print(f"{bundle.name} {bundle.version}, {len(photos)} photos of {arguments.split}; points")
    print(f"{'variant':10}{'top-1':>10}{'ECE':>10}{'d top-1':>10}{'d ECE':>10}")
    worse = False
    for variant, found in results.items():
        away = {key: found[key] - exact[key] for key in LIMITS}
        found["away_from_exact"] = away
        print(
            f"{variant:10}{found['accuracy']:10.2f}{found['ece']:10.2f}"
            f"{away['accuracy']:+10.2f}{away['ece']:+10.2f}"
        )
        worse |= any(abs(away[key]) > limit for key, limit in LIMITS.items())
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
