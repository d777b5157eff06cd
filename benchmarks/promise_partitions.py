"""Is the promise kept? The whole procedure, repeated over random partitions of labelled photos.

    python benchmarks/promise_partitions.py DATA... [--out-of-scope DIR] [--bundle DIR] [--partitions 200]
        [--seed 0] [--workers 2] [--cache FILE]

The photos of the splits `calibration` and `test`, none of which trained a network, are thrown together and
cut anew into as many calibration and test photos as before. On each new calibration part everything is fitted
again: arbiter, router, scope stage, promise, label sets. Each new test part is then answered, for several
values of `max_error`, with the promised operating point.

Printed for each value: in how many partitions it could be promised; "kept", in what share of all partitions
the measured share of wrong answers stayed at or below it or nothing was promised; "refuted", in what share it
was so much larger that chance does not explain it (one-sided exact binomial test at 5 %); mean and largest
error measured; and how many photos were answered. The promise is about the error in the long run; a measured
one scatters around that, so "kept" understates and "refuted" is the fairer check. The same for label sets.
Networks stay as they are: they saw neither split.

DATA holds {calibration,test}/LABEL/FILE; DIR, photos that are none of the labels. Running
the networks takes minutes; --cache keeps their outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy import stats

from cascade import Bundle, Cascade
from cascade.evaluation.dataset import Photo, scan
from cascade.evaluation.guarantee_check import check_label_sets
from cascade.evaluation.labelled_answers import label_answers
from cascade.labels import NOT_MINE
from cascade.training.calibration.arbiter import arbitrate
from cascade.training.calibration.cross_fitting import calibrate
from cascade.training.calibration.guarantees import fit_guarantees
from cascade.training.calibration.out_of_distribution import InScope, run_scope
from cascade.training.calibration.outlier_exposure import Strangers
from cascade.training.calibration.router import expected_gain
from cascade.training.calibration.stage_logits import StageLogits
from cascade.training.project import strangers_in

SHARES = (0.03, 0.05, 0.08, 0.10, 0.15, 0.20, 0.30)
COVERAGES = (0.80, 0.90, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out-of-scope", type=Path, help="photos that are none of the labels")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="outputs of the networks, .npz")
    parser.add_argument("--workers", type=int, default=1, help="partitions that are worked on at once")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    arrays = outputs_of_everybody(bundle, given.data, given.out_of_scope, given.cache)
    work = partial(one_partition, bundle, arrays, given.seed)
    found = []
    with ProcessPoolExecutor(given.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, result in enumerate(pool.map(work, range(given.partitions)), 1):
            found.append(result)
            print(f"\rpartition {number}/{given.partitions}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report(bundle, arrays, found)


def outputs_of_everybody(
    bundle: Bundle, data: list[Path], out_of_scope: Path | None, cache: Path | None
) -> dict[str, np.ndarray]:
    """Everybody's outputs on both splits: every photo shown to every expert, once."""
    if cache is not None and cache.is_file():
        with np.load(cache) as stored:
            return dict(stored)
    cascade = Cascade(bundle, ask="always")
    dataset = scan(data, bundle.tree.labels)
    arrays = outputs_on(cascade, [*dataset.split("calibration"), *dataset.split("test")])
    if out_of_scope is not None:
        with TemporaryDirectory() as notes:
            strangers = strangers_in(out_of_scope, Path(notes)).photos
        arrays |= {f"stranger {name}": values for name, values in outputs_on(cascade, strangers).items()}
    if cache is not None:
        np.savez(cache, **arrays)
    return arrays


def outputs_on(cascade: Cascade, photos: Sequence[Photo]) -> dict[str, np.ndarray]:
    """What every stage says of photos; a label that the bundle does not know has the target -1."""
    parts: dict[str, list[np.ndarray]] = {}
    columns = {label: column for column, label in enumerate(cascade.bundle.tree.labels)}
    for start in range(0, len(photos), 32):
        chunk = photos[start : start + 32]
        prepared = cascade.prepare_photos([photo.path for photo in chunk])
        out = cascade.run_stages(prepared.inputs, ask="always")
        read = [chunk[i] for i in prepared.positions]
        rows = {
            "targets": np.array([columns.get(photo.label, -1) for photo in read]),
            "calibration": np.array([photo.split == "calibration" for photo in read]),
            "sources": np.array([photo.source for photo in read], dtype="U64"),
            "general": out.general_logits,
            "embedding": out.embedding,
            **{f"expert {name}": logits for name, logits in out.expert_logits.items()},
        }
        for name, values in rows.items():
            parts.setdefault(name, []).append(values)
        print(f"\rphotos {start + len(chunk)}/{len(photos)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: np.concatenate(values) for name, values in parts.items()}


def one_partition(bundle: Bundle, arrays: dict[str, np.ndarray], seed: int, number: int) -> dict:
    """Fit everything on a new calibration part and measure it on the new test part."""
    tree, n = bundle.tree, len(arrays["targets"])
    own = {e.name: tuple(label for label in e.labels if label != NOT_MINE) for e in bundle.experts}
    costs = [expert.cost for expert in bundle.experts]
    everything = StageLogits(
        arrays["general"].astype(np.float64),
        {name: arrays[f"expert {name}"].astype(np.float64) for name in own},
        arrays["targets"],
        tuple(arrays["sources"].tolist()),
    )
    known = InScope(arrays["general"], arrays["embedding"], arrays["targets"], everything.sources)
    strangers = None
    if "stranger general" in arrays:
        strangers = Strangers(
            arrays["stranger general"],
            arrays["stranger embedding"],
            tuple(arrays["stranger sources"].tolist()),
            arrays["stranger calibration"],
            {name: arrays[f"stranger expert {name}"] for name in own},
        )
    order = np.random.default_rng([seed, number]).permutation(n)
    first = int(arrays["calibration"].sum())
    ours, theirs = np.sort(order[:first]), np.sort(order[first:])

    fitted = calibrate(everything.rows(ours), tree, own, costs, seed=number)
    fitted = dataclasses.replace(fitted, dial=())  # only the default is examined
    made = fit_guarantees(
        fitted, known.rows(ours), tree, seed=number, max_error=0.1, metadata={}, strangers=strangers
    )

    test = everything.rows(theirs)
    deferred = np.zeros((len(theirs), len(own)), dtype=np.bool_)
    if fitted.router is not None:
        gain = expected_gain(fitted.router, test, tree, own)
        deferred = gain > fitted.default.cost_weight * np.asarray(costs)
    probabilities = arbitrate(fitted.arbiter, test, tree, own, deferred)
    scores = run_scope(made.scope, known.logits[theirs], known.embedding[theirs])
    answers = label_answers(probabilities, test.targets, scores, tree)
    promised = {}
    for share in SHARES:
        if made.promise is None or share < made.promise.smallest:
            continue
        point = made.promise.operating_point(share)
        counts = answers.counts(
            np.array([point.leaf_threshold]), np.array([point.parent_threshold]), point.scope_threshold
        )
        found = {name: int(values[0]) for name, values in counts._asdict().items()}
        promised[share] = found | {"photos": len(theirs)}
    sets = {
        coverage: check_label_sets(made.label_sets, probabilities, test.targets, coverage)
        for coverage in COVERAGES
        if made.label_sets is not None and coverage <= made.label_sets.largest
    }
    return {"promised": promised, "sets": sets, "smallest": made.promise and made.promise.smallest}


def report(bundle: Bundle, arrays: dict[str, np.ndarray], found: list[dict]) -> None:
    calibration = int(arrays["calibration"].sum())
    print(
        f"bundle {bundle.name} {bundle.version}; {len(found)} partitions of {len(arrays['targets'])} photos: "
        f"{calibration} for calibration, {len(arrays['targets']) - calibration} for the test"
    )
    smallest = [result["smallest"] for result in found if result["smallest"] is not None]
    if smallest:
        low, middle, high = np.quantile(smallest, [0.05, 0.5, 0.95])
        print(f"smallest share that could be promised: {middle:.1%} (5 % to 95 %: {low:.1%} to {high:.1%})")
    print("\npromised  in partitions  kept    refuted  mean error  largest  answered  labels  unknown")
    for share in SHARES:
        rows = [result["promised"][share] for result in found if share in result["promised"]]
        if not rows:
            print(f"{share:7.0%}  {0:13}")
            continue
        wrong, answered, labels, photos = (
            np.array([row[key] for row in rows]) for key in ("wrong", "answered", "labels", "photos")
        )
        error = wrong / np.maximum(answered, 1)
        # Refuted: with a true share of `share` so many wrong ones would be seen in 5 % of the cases at most.
        refuted = stats.binom.sf(wrong - 1, answered, share) <= 0.05
        print(
            f"{share:7.0%}  {len(rows):13}  {1 - (error > share).sum() / len(found):6.1%}  "
            f"{refuted.sum() / len(found):7.1%}  "
            f"{error.mean():10.2%}  {error.max():7.2%}  {(answered / photos).mean():8.1%}  "
            f"{(labels / photos).mean():6.1%}  {(1 - answered / photos).mean():7.1%}"
        )
    print("\nlabel sets: wanted  mean coverage  (5 % to 95 %)      mean size  one label  worst label")
    for coverage in COVERAGES:
        rows = [result["sets"][coverage] for result in found if coverage in result["sets"]]
        if rows:
            covered = np.array([row.coverage for row in rows])
            low, high = np.quantile(covered, [0.05, 0.95])
            size, single, worst = (
                np.mean([getattr(row, key) for row in rows])
                for key in ("mean_size", "single", "worst_label_coverage")
            )
            print(
                f"{coverage:18.0%}  {covered.mean():13.1%}  ({low:.1%} to {high:.1%})  {size:9.2f}  "
                f"{single:9.1%}  {worst:11.1%}"
            )


if __name__ == "__main__":
    main()
