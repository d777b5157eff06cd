"""Checks a bundle's promises on labelled photos, as they are and corrupted."""

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
from cascade.evaluation.corruptions import CORRUPTIONS
from cascade.evaluation.dataset import Photo
from cascade.evaluation.labelled_answers import LabelledAnswers, label_answers
from cascade.evaluation.metrics import Interval, wilson_interval
from cascade.guarantees.conformal_sets import LabelSets, set_scores
from cascade.imaging.decoding import load_image
from cascade.labels import LabelTree
from cascade.policy import OperatingPoint, in_scope

__all__ = [
    "AS_THEY_ARE",
    "ErrorCheck",
    "GuaranteeCheck",
    "LabelSetCheck",
    "check_errors",
    "check_guarantees",
    "check_label_sets",
]

AS_THEY_ARE: Final = "as they are"
#: Coverages of label sets that are measured, as far as the bundle can give them.
COVERAGES: Final = (0.80, 0.90, 0.95)


@dataclass(frozen=True, slots=True)
class ErrorCheck:
    """The error that is promised and the error that was measured, on one set of photos.

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
class LabelSetCheck:
    """How large label sets are, and how often they hold the right label.

    Attributes:
        wanted: the coverage that sets were made for.
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
class GuaranteeCheck:
    """What is promised, and what was measured.

    Attributes:
        rows: for the photos as they are, then for every corruption.
        sets: of the photos as they are, by coverage.
        tree: names the labels of ``sets``.
        confidence: that the promise is kept; None if nothing is promised.
    """

    rows: tuple[ErrorCheck, ...]
    sets: tuple[LabelSetCheck, ...]
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


def check_errors(
    name: str, answers: LabelledAnswers, point: OperatingPoint, changed: float = 0.0
) -> ErrorCheck:
    """Compare what an operating point promises with what it does; the arguments are those of `ErrorCheck`."""
    counts = answers.counts(
        np.array([point.leaf_threshold]), np.array([point.parent_threshold]), point.scope_threshold
    )
    answered, labels, wrong, outside = (int(values[0]) for values in counts)
    n = len(answers)
    return ErrorCheck(
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
        accuracy=float(answers.leaf_right.mean()),
        changed=changed,
    )


def check_label_sets(sets: LabelSets, probabilities: Floats, targets: Ints, coverage: float) -> LabelSetCheck:
    """Measure label sets.

    Args:
        sets: the numbers of the bundle.
        probabilities: (N, L).
        targets: (N,), columns of the right labels.
        coverage: share of sets that should hold the right label, 0..1.

    Raises:
        UsageError: when the bundle cannot give it.
    """
    order, scores = set_scores(probabilities, sets.penalty, sets.free_ranks)
    inside = scores <= sets.threshold(coverage)
    right = (inside & (order == targets[:, None])).any(axis=1)
    by_label = {int(label): float(right[targets == label].mean()) for label in np.unique(targets)}
    worst = min(by_label, key=lambda label: by_label[label])
    sizes = inside.sum(axis=1)
    return LabelSetCheck(
        wanted=coverage,
        coverage=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        mean_size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        worst_label_coverage=by_label[worst],
        worst_label=worst,
        worst_label_photos=int((targets == worst).sum()),
    )


def check_guarantees(
    cascade: Cascade,
    photos: Sequence[Photo],
    probabilities: Floats,
    targets: Ints,
    scope_score: Floats | None,
    *,
    corrupted: int = 300,
    progress: Callable[[int, int], None] | None = None,
) -> GuaranteeCheck:
    """Measure whether promises are kept, on photos as they are and under every corruption.

    Args:
        cascade: its operating point is what is examined.
        photos: N labelled photos that can be read.
        probabilities: (N, L), what the cascade says of them as they are.
        targets: (N,), columns of the right labels.
        scope_score: (N,), of the photos as they are; None if the bundle has no scope stage.
        corrupted: number of photos at most, spread evenly, that are corrupted in every way; 0 for none.
        progress: called with the corrupted photos done and their number.
    """
    tree, point = cascade.bundle.tree, cascade.operating_point
    answers = label_answers(probabilities, targets, scope_score, tree)
    rows = [check_errors(AS_THEY_ARE, answers, point)]
    before = np.asarray(probabilities.argmax(axis=1))
    labelled = in_scope(scope_score, point.scope_threshold) & (answers.leaf >= point.leaf_threshold)
    places = np.unique(np.linspace(0, len(photos) - 1, min(corrupted, len(photos))).round().astype(int))
    total, done = len(places) * len(CORRUPTIONS), 0
    with ThreadPoolExecutor(cascade.workers, thread_name_prefix="cascade") as pool:
        for name, change in CORRUPTIONS.items() if len(places) else ():
            parts = []
            work = partial(_corrupted, cascade, photos, targets, change)
            for chunk in pool.map(work, np.array_split(places, -(-len(places) // 16))):
                parts.append(chunk)
                done += len(chunk[1])
                if progress is not None:
                    progress(done, total)
            after = np.concatenate([predicted for _, predicted in parts])
            different = (after != before[places])[labelled[places]]
            changed = float(different.mean()) if different.size else float("nan")
            rows.append(check_errors(name, _joined([part for part, _ in parts]), point, changed))
    dial, sets = cascade.bundle.budget, cascade.bundle.label_sets
    if dial is not None and cascade.budget not in (None, dial.default):
        sets = None  # they were tested with the experts asked as by default
    measured = [
        check_label_sets(sets, probabilities, targets, coverage)
        for coverage in COVERAGES
        if sets is not None and coverage <= sets.largest
    ]
    promise = None if point.max_error is None else cascade.promise
    return GuaranteeCheck(tuple(rows), tuple(measured), tree, None if promise is None else promise.confidence)


def _corrupted(
    cascade: Cascade,
    photos: Sequence[Photo],
    targets: Ints,
    change: Callable[[Image.Image], Image.Image],
    places: Ints,
) -> tuple[LabelledAnswers, Ints]:
    """Classify some photos after a change; return the answers and the most probable labels, (n,)."""
    changed = [change(load_image(photos[i].path, max_pixels=cascade.max_pixels)) for i in places]
    outputs = cascade.run_stages(cascade.prepare_photos(changed).inputs, ask="router")
    tree = cascade.bundle.tree
    answers = label_answers(outputs.probabilities, targets[places], outputs.scope_score, tree)
    return answers, np.asarray(outputs.probabilities.argmax(axis=1))


def _joined(parts: Sequence[LabelledAnswers]) -> LabelledAnswers:
    return LabelledAnswers(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("leaf", "leaf_right", "parent", "parent_right", "score")
        )
    )
