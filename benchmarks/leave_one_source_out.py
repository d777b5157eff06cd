"""Measures how well a source is recognised that nobody trained on.

    python benchmarks/leave_one_source_out.py DATA [DATA ...] --recipes experts [--work DIR] [--weights 1 0]

For every source that shares at least two labels with the others: a linear classifier on frozen features of
the general recipe's backbone is trained on the photos of all other sources and measured on those of this one.
It is trained once for each weight of the contrasts with labels of other sources
(`cascade.training.data.contrasts`): at 1 every photo is contrasted with every label, at 0 only with those
that its own source holds. Only the split `train` is used, on both sides. The features are kept in the working
folder.

With ``--trained WORK`` the features are those of the network that `cascade train` left in WORK. It has seen
every source; the figures then say how far the last layer depends on the source.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cascade.evaluation.dataset import scan
from cascade.evaluation.metrics import wilson_interval
from cascade.training.data.cached_views import cache_plain
from cascade.training.data.contrasts import excluded_labels, weighted_contrasts
from cascade.training.data.sampling import sampling_chances
from cascade.training.fit.backbone import backbone_file, build
from cascade.training.recipe import Backbone, Recipe, Schedule, load_recipes

EPOCHS, BATCH, RATE, DECAY = 12, 512, 2e-3, 0.05
#: Fewer photos of a source say nothing about it.
LEAST = 30


def linear_classifier(
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    sources: list[str],
    recipe: Recipe,
    weight: float,
) -> torch.nn.Module:
    """Train one layer on standardised features, photos drawn as the recipe says."""
    torch.manual_seed(recipe.train.seed)
    rng = np.random.default_rng(recipe.train.seed)
    labels = len(recipe.labels)
    excluded = torch.from_numpy(excluded_labels(targets, sources, labels))
    chances = sampling_chances(targets, sources, recipe.train)
    norm = torch.nn.BatchNorm1d(features.shape[1], affine=False)
    model = torch.nn.Sequential(norm, torch.nn.Linear(features.shape[1], labels))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * len(targets) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = rng.choice(len(targets), BATCH, p=chances / chances.sum())
        logits = weighted_contrasts(model(torch.from_numpy(features[rows])), excluded[rows], weight)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--recipes", type=Path, default=Path("experts"))
    parser.add_argument("--work", type=Path, help="folder for features; a temporary one if not given")
    parser.add_argument("--trained", type=Path, help="working folder of a finished training")
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 0.0], metavar="W")
    given = parser.parse_args()
    general = load_recipes([given.recipes])[0]
    backbone = general.backbone
    if given.trained is not None:
        backbone = Backbone(backbone.name, f"file:{backbone_file(given.trained, general.name)}")
    recipe = general.replace(backbone=backbone, train=general.train.replace(train_from="head"))
    frozen = recipe.replace(train=Schedule(train_from="head"))
    photos = scan(given.data, general.labels).split("train")
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("features", total=len(photos))
        features = cache_plain(
            frozen,
            build(frozen).frozen,
            photos,
            given.work or Path(scratch),
            device=torch.device("cpu"),
            progress=lambda _what, done, _total: progress.update(bar, completed=done),
        )
        x = np.asarray(features, dtype=np.float32)
    columns = {label: column for column, label in enumerate(general.labels)}
    y = np.array([columns[photo.label] for photo in photos])
    sources = np.array([photo.collection for photo in photos])

    table = Table(title="share right on a source that was left out of training")
    weights = [f"{weight:g}" for weight in given.weights]
    for name in ("source", "photos", *weights, f"95 % of {weights[-1]}"):
        table.add_column(name, justify="left" if name == "source" else "right")
    found: list[list[float]] = []
    names, counts = np.unique(sources, return_counts=True)
    for source in names[np.argsort(-counts)]:
        out = sources == source
        elsewhere = np.unique(y[~out])
        known = out & np.isin(y, elsewhere)
        if known.sum() < LEAST or len(np.unique(y[known])) < 2:
            continue
        right = []
        for weight in given.weights:
            model = linear_classifier(x[~out], y[~out], sources[~out].tolist(), recipe, weight)
            with torch.inference_mode():
                predicted = model(torch.from_numpy(x[known])).argmax(1).numpy()
            right.append(int((predicted == y[known]).sum()))
        n = int(known.sum())
        low, high = wilson_interval(right[-1], n)
        found.append([r / n for r in right])
        table.add_row(str(source), str(n), *(f"{r / n:.1%}" for r in right), f"{low:.1%} to {high:.1%}")
    table.add_section()
    table.add_row("mean over sources", "", *(f"{value:.1%}" for value in np.mean(found, axis=0)))
    table.add_row("worst source", "", *(f"{value:.1%}" for value in np.min(found, axis=0)))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
