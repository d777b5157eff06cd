"""Checks on labelled photos whether a bundle keeps its promises, as they are and under shift."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from PIL import Image

from cascade.arrays import Floats, Ints
from cascade.classifier import Cascade
from cascade.evaluation.corruptions import SHIFTS
from cascade.evaluation.dataset import Photo
from cascade.evaluation.labelled_answers import Judged, judge
from cascade.evaluation.metrics import Interval, wilson_interval
from cascade.guarantees.conformal_sets import LabelSets, set_scores
from cascade.imaging.decoding import load_image
from cascade.labels import LabelTree
from cascade.policy import OperatingPoint, in_scope

__all__ = [
    "AS_THEY_ARE",
    "Kept",
    "Proof",
    "SetScores",
    "kept",
    "prove",
    "sets_of",
]

AS_THEY_ARE: Final = "as they are"
#: Coverages of label sets that are measured, as far as the bundle can give them.
COVERAGES: Final = (0.80, 0.90, 0.95)


@dataclass(frozen=True, slots=True)
class Kept:
    """Promised and measured, on one set of photos.

    Attributes:
        name: what was done to the photos.
        photos: how many there were.
        promised: largest share of wrong ones among the answers; None if nothing is promised.
        answered: photos with a label or a broader one.
        wrong: answered photos with a wrong one.
        error: share of wrong ones among the answered; nan if nobody was answered.
        interval: of the error, at 95 %, by Wilson's method.
        labels: share of all photos that got a label.
        parents: share that got a broader label.
        unknown: share that got neither.
        out_of_scope: share that got neither because it is unlike everything known.
        accuracy: share of photos whose most probable label is the right one.
        changed: among the photos that get a label as they are, share whose most probable label is another
            one after the change; nan if none gets one.
    """

    name: str
    photos: int
    promised: float | None
    answered: int
    wrong: int
    error: float
    interval: Interval
    labels: float
    parents: float
    unknown: float
    out_of_scope: float
    accuracy: float
    changed: float

    @property
    def broken(self) -> bool:
        """Whether the measured error shows that the true one is larger than promised."""
        return self.promised is not None and self.interval.low > self.promised


@dataclass(frozen=True, slots=True)
class SetScores:
    """What label sets did.

    Attributes:
        wanted: coverage that was asked for.
        coverage: share of photos whose set held the right label.
        interval: of the coverage, at 95 %, by Wilson's method.
        mean_size: labels per set.
        single: share of sets of one label.
        worst_label_coverage: coverage over the photos of the label where it is lowest.
        worst_label: column of that label.
        worst_label_photos: photos of that label.
    """

    wanted: float
    coverage: float
    interval: Interval
    mean_size: float
    single: float
    worst_label_coverage: float
    worst_label: int
    worst_label_photos: int


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything that was measured.

    Attributes:
        rows: for the photos as they are, then for every shift.
        sets: of the photos as they are, by coverage.
        tree: names the labels of ``sets``.
        confidence: that the promise is kept; None if nothing is promised.
    """

    rows: tuple[Kept, ...]
    sets: tuple[SetScores, ...]
    tree: LabelTree
    confidence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        rows = [asdict(row) | {"broken": row.broken} for row in self.rows]
        for row in rows:
            row["error"] = None if row["answered"] == 0 else row["error"]
            row["changed"] = None if math.isnan(row["changed"]) else row["changed"]
        sets = [asdict(s) | {"worst_label": self.tree.labels[s.worst_label]} for s in self.sets]
        return {"promise": rows, "label_sets": sets}


def kept(name: str, judged: Judged, point: OperatingPoint, changed: float = 0.0) -> Kept:
    """Compare what an operating point promises with what it does; the arguments are those of `Kept`."""
    counts = judged.counts(np.array([point.leaf_threshold]), np.array([point.parent_threshold]))
    answered, labels, wrong, outside = (int(values[0]) for values in counts)
    n = len(judged)
    return Kept(
        name=name,
        photos=n,
        promised=point.max_error,
        answered=answered,
        wrong=wrong,
        error=wrong / answered if answered else float("nan"),
        interval=wilson_interval(wrong, answered),
        labels=labels / n,
        parents=(answered - labels) / n,
        unknown=1 - answered / n,
        out_of_scope=outside / n,
        accuracy=float(judged.leaf_right.mean()),
        changed=changed,
    )


def sets_of(sets: LabelSets, probabilities: Floats, targets: Ints, coverage: float) -> SetScores:
    """Measure label sets.

    Args:
        sets: the numbers of the bundle.
        probabilities: (N, L).
        targets: (N,), columns of the right labels.
        coverage: that is asked for.

    Raises:
        UsageError: when the bundle cannot give it.
    """
    order, scores = set_scores(probabilities, sets.penalty, sets.free_ranks)
    inside = scores <= sets.threshold(coverage)
    right = (inside & (order == targets[:, None])).any(axis=1)
    by_label = {int(label): float(right[targets == label].mean()) for label in np.unique(targets)}
    worst = min(by_label, key=lambda label: by_label[label])
    sizes = inside.sum(axis=1)
    return SetScores(
        wanted=coverage,
        coverage=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        worst_label_coverage=by_label[worst],
        worst_label=worst,
        worst_label_photos=int((targets == worst).sum()),
    )


def prove(
    cascade: Cascade,
    photos: Sequence[Photo],
    probabilities: Floats,
    targets: Ints,
    scope_score: Floats | None,
    *,
    shifted: int = 300,
    progress: Callable[[int, int], None] | None = None,
) -> Proof:
    """Measure whether promises are kept, on photos as they are and under every shift.

    Args:
        cascade: its operating point is what is examined.
        photos: N labelled photos that can be read.
        probabilities: (N, L), what the cascade says of them as they are.
        targets: (N,), columns of the right labels.
        scope_score: (N,), of the photos as they are; None if the bundle has no scope stage.
        shifted: the shifts are shown on so many photos at most, spread evenly; 0 leaves them out.
        progress: called with the shifted photos done and their number.
    """
    tree, point = cascade.bundle.tree, cascade.operating_point
    inside = in_scope(scope_score, point.scope_threshold)
    judged = judge(probabilities, targets, inside, tree)
    rows = [kept(AS_THEY_ARE, judged, point)]
    before = np.asarray(probabilities.argmax(axis=1))
    labelled = judged.inside & (judged.leaf >= point.leaf_threshold)
    places = np.unique(np.linspace(0, len(photos) - 1, min(shifted, len(photos))).round().astype(int))
    total, done = len(places) * len(SHIFTS), 0
    with ThreadPoolExecutor(cascade.workers, thread_name_prefix="cascade") as pool:
        for name, change in SHIFTS.items() if len(places) else ():
            parts = []
            work = partial(_shifted, cascade, photos, targets, change)
            for chunk in pool.map(work, np.array_split(places, -(-len(places) // 16))):
                parts.append(chunk)
                done += len(chunk[1])
                if progress is not None:
                    progress(done, total)
            after = np.concatenate([predicted for _, predicted in parts])
            different = (after != before[places])[labelled[places]]
            changed = float(different.mean()) if different.size else float("nan")
            rows.append(kept(name, _joined([part for part, _ in parts]), point, changed))
    dial, sets = cascade.bundle.budget, cascade.bundle.label_sets
    if dial is not None and cascade.budget not in (None, dial.default):
        sets = None  # they were tested with the experts asked as by default
    measured = [
        sets_of(sets, probabilities, targets, coverage)
        for coverage in COVERAGES
        if sets is not None and coverage <= sets.largest
    ]
    promise = None if point.max_error is None else cascade.promise
    return Proof(tuple(rows), tuple(measured), tree, None if promise is None else promise.confidence)


def _shifted(
    cascade: Cascade,
    photos: Sequence[Photo],
    targets: Ints,
    change: Callable[[Image.Image], Image.Image],
    places: Ints,
) -> tuple[Judged, Ints]:
    """Judge the photos at some places after a change; also return their most probable labels, (n,)."""
    changed = [change(load_image(photos[i].path, max_pixels=cascade.max_pixels)) for i in places]
    outputs = cascade.run_stages(cascade.prepare_photos(changed).inputs, ask="router")
    inside = in_scope(outputs.scope_score, cascade.operating_point.scope_threshold)
    judged = judge(outputs.probabilities, targets[places], inside, cascade.bundle.tree)
    return judged, np.asarray(outputs.probabilities.argmax(axis=1))


def _joined(parts: Sequence[Judged]) -> Judged:
    return Judged(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("leaf", "leaf_right", "parent", "parent_right", "inside")
        )
    )
