"""What is out of scope, and does the bundle notice? Several scores side by side, and the bundle's answers.

    python benchmarks/out_of_scope.py DATA... [--out-of-scope DIR] [--objects DIR ...] [--bundle DIR]
        [--max-error 0.05 ...] [--seed 0]

Every score of `scope_scores.py` is built as a graph, from two thirds of the split `calibration`; with
`--out-of-scope` (see `cascade train`) also the score "exposed", built from its split `train` too; its
split `calibration` is one more kind of things that chooses, its split `test` one that is printed. Things that
are no scene:

    packaged   photographs and figures inside scikit-image and scikit-learn that show none of the labels
    faces      portraits, the subset of LFW inside scikit-image (25 x 25 pixels, grey)
    shapes     drawn rectangles, ellipses, lines and polygons
    text       rendered pages of text
    noise      of several kinds and grains
    blank      single colours and gradients
    DIR        any folder of photographs, e.g. of nuts or vehicles; a sample of it

The others are cut in two, by turns. The first half and the held-out part of `calibration` choose the best
score, by mean AUROC over the kinds. The second half and the split `test`, which chose nothing, are printed:
AUROC, and the share of things that stay in scope where 95 % of the photos of `test` do. Then, for the bundle
as it is: how many things get an answer at the default operating point and at every `--max-error`, a label, or
a label with a confidence of 0.9. Vehicles stand in streets, so some of their photos are in scope after all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from no_scenes import KINDS
from scope_scores import METHODS
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from cascade import Cascade
from cascade.evaluation.dataset import Photo, scan
from cascade.imaging.files import FindOptions, find_photos
from cascade.policy import OperatingPoint, answer_kind, best_of, in_scope
from cascade.training.calibration.out_of_distribution import (
    METHOD,
    InScope,
    mahalanobis,
    neighbours,
    run_scope,
    scope_graph,
)
from cascade.training.calibration.outlier_exposure import Strangers, exposed

KEPT = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out-of-scope", type=Path, help="photos that are none of the labels")
    parser.add_argument("--max-error", type=float, action="append", default=[])
    parser.add_argument("--objects", type=Path, action="append", default=[])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=int, default=400, help="of every folder of objects")
    given = parser.parse_args()
    cascade = Cascade(given.bundle)
    dataset = scan(given.data, cascade.bundle.tree.labels)
    calibration, test = (said_of(cascade, dataset.split(name), name) for name in ("calibration", "test"))
    folds = StratifiedKFold(3, shuffle=True, random_state=given.seed)
    fit, held_out = next(iter(folds.split(calibration["general"], calibration["targets"])))
    known = InScope(
        calibration["general"],
        calibration["embedding"],
        calibration["targets"],
        tuple(calibration["sources"].tolist()),
    )
    things = {
        name: said_of(cascade, list(make(np.random.default_rng(given.seed))), name)
        for name, make in KINDS.items()
    }
    for folder in given.objects:
        found = [item.path for item in find_photos([str(folder)], FindOptions())]
        step = max(1, len(found) // given.photos)
        things[folder.name] = said_of(cascade, found[::step], folder.name)
    methods = dict(METHODS)
    if given.out_of_scope is not None:
        elsewhere = scan(given.out_of_scope)
        learned = elsewhere.split("train") or elsewhere.photos
        outputs = said_of(cascade, learned, "out of scope")
        sources = tuple(photo.source for photo in learned)
        strangers = Strangers(outputs["general"], outputs["embedding"], sources)
        methods["exposed"] = exposed(strangers)
        methods["exposed, distance"] = exposed(strangers, [mahalanobis])
        methods["exposed, both"] = exposed(strangers, [mahalanobis, neighbours])
    # What chooses, and what is printed.
    halves = {k: (rows_of(v, slice(0, None, 2)), rows_of(v, slice(1, None, 2))) for k, v in things.items()}
    if given.out_of_scope is not None and elsewhere.split("test") and elsewhere.split("calibration"):
        things["elsewhere"] = said_of(cascade, elsewhere.split("test"), "elsewhere")
        chooses = said_of(cascade, elsewhere.split("calibration"), "elsewhere, calibration")
        halves["elsewhere"] = (chooses, things["elsewhere"])
    models = {method: scope_graph(known.rows(fit), {}, methods[method]) for method in methods}
    compare(models, rows_of(calibration, held_out), test, halves)
    answers(cascade, test, things, cascade.operating_point, "at its default operating point")
    for share in given.max_error:
        promise = cascade.bundle.promise
        if promise is None or share < promise.smallest:
            print(f"\n{share:.1%} cannot be promised by this bundle")
            continue
        answers(cascade, test, things, promise.operating_point(share), f"where {share:.1%} is promised")


# --- figures ---------------------------------------------------------------------------------------------


def said_of(cascade: Cascade, photos: Sequence, name: str) -> dict[str, np.ndarray]:
    """What the cascade says of photos, images or paths."""
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(photos), 16):
        chunk = photos[start : start + 16]
        labelled = isinstance(chunk[0], Photo)
        prepared = cascade.prepare_photos([photo.path for photo in chunk] if labelled else chunk)
        if not prepared.positions:
            continue
        out = cascade.run_stages(prepared.inputs)
        rows = {
            "general": out.general_logits,
            "embedding": out.embedding,
            "probabilities": out.probabilities,
            "score": np.zeros(len(out.general_logits)) if out.scope_score is None else out.scope_score,
        }
        if labelled:
            read = [chunk[i] for i in prepared.positions]
            labels = {label: column for column, label in enumerate(cascade.bundle.tree.labels)}
            rows["targets"] = np.array([labels.get(photo.label, -1) for photo in read])
            rows["sources"] = np.array([photo.source for photo in read], dtype="U64")
        for key, values in rows.items():
            parts.setdefault(key, []).append(values)
        print(f"\r{name}: {start + len(chunk)}/{len(photos)}   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {key: np.concatenate(values) for key, values in parts.items()}


def rows_of(outputs: dict[str, np.ndarray], rows: np.ndarray | slice) -> dict[str, np.ndarray]:
    return {key: values[rows] for key, values in outputs.items()}


def compare(models: dict, choosing: dict, test: dict, things: dict) -> None:
    """Choose on the first of the two parts that things have, print the second."""
    halves = [{k: parts[h] for k, parts in things.items()} for h in (0, 1)]
    scores = {
        method: {
            "choosing": run_scope(model, choosing["general"], choosing["embedding"]),
            "test": run_scope(model, test["general"], test["embedding"]),
            "things": [
                {k: run_scope(model, v["general"], v["embedding"]) for k, v in half.items()}
                for half in halves
            ],
        }
        for method, model in models.items()
    }
    chosen_by = {
        m: np.mean([auroc(s["choosing"], other) for other in s["things"][0].values()])
        for m, s in scores.items()
    }
    best = max(chosen_by, key=lambda method: chosen_by[method])
    print(f"best by mean AUROC on what chooses: {best}; without --out-of-scope a bundle has: {METHOD}\n")
    width = max(len(kind) for kind in things) + 7
    for title, figure in (("AUROC", auroc), (f"in scope at {KEPT:.0%}", still_in_scope)):
        heads = [f"{kind} ({len(other['general'])})" for kind, other in halves[1].items()]
        print(f"{title:<18}" + "".join(f"{head:>{width}}" for head in heads), end="")
        print(f"{'mean':>9}{'mean, choosing':>16}")
        for method, found in scores.items():
            values = [figure(found["test"], other) for other in found["things"][1].values()]
            before = np.mean([figure(found["choosing"], other) for other in found["things"][0].values()])
            print(f"{method:<18}" + "".join(f"{value:>{width}.3f}" for value in values), end="")
            print(f"{np.mean(values):>9.3f}{before:>16.3f}{'  *' if method == best else ''}")
        print()


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    truth = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    return float(roc_auc_score(truth, np.concatenate([inside, outside])))


def still_in_scope(inside: np.ndarray, outside: np.ndarray) -> float:
    """The share of things that would pass where 95 % of the photos do; lower is better."""
    return float((outside <= np.quantile(inside, KEPT)).mean())


def answers(cascade: Cascade, test: dict, things: dict, point: OperatingPoint, title: str) -> None:
    """What the bundle as it is answers at an operating point, with its scope stage and without."""
    bundle, tree = cascade.bundle, cascade.bundle.tree
    print(f"\nanswers of the bundle {bundle.name} {bundle.version} {title}, shares")
    print(
        f"{'':<12}{'n':>6}{'in scope':>10}{'answered':>10}{'label':>8}{'label >= 0.9':>14}"
        f"{'answered without scope':>24}"
    )
    for name, outputs in {"test": test, **things}.items():
        best = best_of(outputs["probabilities"], tree)
        thresholds = (point.leaf_threshold, point.parent_threshold)
        inside = in_scope(outputs["score"], point.scope_threshold)
        kind = answer_kind(best.leaf_confidence, best.parent_confidence, inside, *thresholds)
        plain = answer_kind(best.leaf_confidence, best.parent_confidence, True, *thresholds)
        sure = (kind == "leaf") & (best.leaf_confidence >= 0.9)
        print(
            f"{name:<12}{len(inside):>6}{inside.mean():>10.1%}"
            f"{np.isin(kind, ['leaf', 'parent']).mean():>10.1%}{(kind == 'leaf').mean():>8.1%}"
            f"{sure.mean():>14.1%}"
            f"{np.isin(plain, ['leaf', 'parent']).mean():>24.1%}"
        )


if __name__ == "__main__":
    main()
