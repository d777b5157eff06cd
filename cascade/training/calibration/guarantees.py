"""Fits everything that a bundle guarantees, and the scope stage.

fit part    builds the scope stage and its threshold (cross-fitted), decides how promises are tested,
            tunes label sets
held out    tests promises, gives the thresholds of label sets, and is the reference
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cascade.evaluation.labelled_answers import Judged, judge
from cascade.guarantees.budget import BudgetCurve, BudgetPoint
from cascade.guarantees.conformal_sets import LabelSets
from cascade.guarantees.drift import Reference
from cascade.guarantees.risk_control import Promise
from cascade.labels import LabelTree
from cascade.policy import OperatingPoint, in_scope
from cascade.training.calibration.conformal_sets import fit_label_sets
from cascade.training.calibration.cross_fitting import Asking, Calibration
from cascade.training.calibration.out_of_distribution import (
    FEWEST_KNOWN,
    KEPT,
    METHOD,
    InScope,
    cross_fitted_scores,
    mahalanobis,
    run_scope,
    scope_graph,
)
from cascade.training.calibration.outlier_exposure import Strangers, exposed
from cascade.training.calibration.risk_control import default_point, fit_promise
from cascade.training.calibration.sources import promised_collections, rows_of

__all__ = ["Guarantees", "fit_guarantees"]

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What was fitted.

    Attributes:
        scope: `scope.onnx`; None if there are too few photos.
        point: the default operating point.
        promise: None if nothing can be promised.
        budget: the dial, every step with promises of its own; None without experts.
        label_sets: None if there are too few photos.
        reference: for `cascade.guarantees.drift`.
        facts: how it came about, for metrics.json and the card.
    """

    scope: onnx.ModelProto | None
    point: OperatingPoint
    promise: Promise | None
    budget: BudgetCurve | None
    label_sets: LabelSets | None
    reference: Reference
    facts: dict[str, Any]


def fit_guarantees(
    calibration: Calibration,
    known: InScope,
    tree: LabelTree,
    *,
    seed: int,
    max_error: float,
    metadata: Mapping[str, str],
    strangers: Strangers | None = None,
) -> Guarantees:
    """Build everything that a bundle guarantees.

    Args:
        calibration: of the same photos.
        known: what the general model says of the N calibration photos.
        tree: the bundle's labels.
        seed: of the partitions.
        max_error: what the default operating point should promise.
        metadata: goes into the graph's metadata_props.
        strangers: photos that are none of the labels; None builds the scope stage without them.
    """
    fit, held_out = known.rows(calibration.fit_rows), known.rows(calibration.held_out_rows)
    scope, limit, fit_scores, scores = _fit_scope(fit, held_out, seed, metadata, strangers)

    def tested(asking: Asking) -> tuple[Promise | None, OperatingPoint, Judged]:
        judged = judge(asking.held_out_probabilities, held_out.targets, in_scope(scores, limit), tree)
        fitted = judge(asking.fit_probabilities, fit.targets, in_scope(fit_scores, limit), tree)
        promise = fit_promise(
            fitted,
            judged,
            groups=_by_collection(fitted, fit.sources, judged, held_out.sources),
            max_error=max_error,
            cost_weight=asking.cost_weight,
            scope_threshold=limit,
        )
        return promise, default_point(promise, max_error, asking.cost_weight, limit), judged

    default = calibration.default
    promise, point, judged = tested(default)
    steps = []
    for asking in calibration.dial:
        own, own_point, _ = (promise, point, judged) if asking is default else tested(asking)
        steps.append(_budget_point(asking, own, own_point))
    facts = {
        "scope": None if scores is None else _kept(scores, limit, strangers),
        "promise": _describe(promise, point, judged),
    }
    return Guarantees(
        scope=scope,
        point=point,
        promise=promise,
        budget=BudgetCurve(default.budget, tuple(steps)) if steps else None,
        label_sets=fit_label_sets(
            (default.fit_probabilities, fit.targets),
            (default.held_out_probabilities, held_out.targets),
        ),
        reference=_reference(default, scores, tree),
        facts=facts,
    )


def _by_collection(
    fitted: Judged, fit_sources: Sequence[str], judged: Judged, held_out_sources: Sequence[str]
) -> dict[str, tuple[Judged, Judged]]:
    """Return the answers of both parts for every collection of photos that gets a promise of its own."""
    return {
        name: (fitted.rows(rows_of(fit_sources, name)), judged.rows(rows_of(held_out_sources, name)))
        for name in promised_collections(held_out_sources)
    }


def _budget_point(asking: Asking, promise: Promise | None, point: OperatingPoint) -> BudgetPoint:
    figures = {name: asking.figures[name] for name in ("mean_cost", "accuracy", "nll", "deferral_rate")}
    return BudgetPoint(asking.budget, **figures, operating_point=point, promise=promise)


def _reference(default: Asking, scores: Scores | None, tree: LabelTree) -> Reference:
    """Return what drift is measured against: the answers on the held-out photos."""
    best = default.held_out_probabilities.argmax(1)
    counts = np.bincount(best, minlength=len(tree.labels))
    return Reference(
        confidences=_sorted(default.held_out_probabilities.max(1)),
        scope_scores=() if scores is None else _sorted(scores),
        labels={label: int(count) for label, count in zip(tree.labels, counts, strict=True)},
        deferred=int(default.held_out_asked.any(1).sum()),
    )


def _fit_scope(
    fit: InScope, held_out: InScope, seed: int, metadata: Mapping[str, str], strangers: Strangers | None
) -> tuple[onnx.ModelProto | None, float | None, Scores | None, Scores | None]:
    """Return the scope stage, its threshold, and the scores of both parts; nothing with too few photos."""
    if len(fit.targets) < FEWEST_KNOWN:
        return None, None, None, None
    add_score = mahalanobis if strangers is None else exposed(strangers)
    scope = scope_graph(fit, metadata, add_score)
    fit_scores = cross_fitted_scores(fit, seed, add_score)
    # Rounded upwards to what bundle.json says, before anything is tested with it.
    limit = math.ceil(float(np.quantile(fit_scores, KEPT)) * 1e6) / 1e6
    return scope, limit, fit_scores, run_scope(scope, held_out.logits, held_out.embedding)


def _kept(scores: Scores, limit: float | None, strangers: Strangers | None) -> dict[str, Any]:
    kept = np.mean(in_scope(scores, limit))
    method = METHOD if strangers is None else f"{METHOD} and outlier exposure"
    return {"method": method, "threshold": limit, "kept": round(float(kept), 4)}


def _describe(promise: Promise | None, point: OperatingPoint, judged: Judged) -> dict[str, Any]:
    counts = judged.counts(np.array([point.leaf_threshold]), np.array([point.parent_threshold]))
    labels, answered = float(counts.labels[0]), float(counts.answered[0])
    n = len(judged)
    return {
        "photos": n,
        "max_error": point.max_error,
        "smallest": promise.smallest if promise else None,
        "answered_leaf": round(labels / n, 4),
        "answered_parent": round((answered - labels) / n, 4),
        "unknown": round(1.0 - answered / n, 4),
    }


def _sorted(values: Any) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in np.sort(values))
