"""Fits everything that a bundle guarantees, and the scope stage.

fit part    builds the scope stage and its threshold (cross-fitted), decides how promises are tested,
            tunes label sets
held out    tests promises, gives the thresholds of label sets, and is the reference
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cascade.evaluation.labelled_answers import LabelledAnswers, label_answers
from cascade.guarantees.budget import BudgetCurve, BudgetPoint
from cascade.guarantees.conformal_sets import LabelSets
from cascade.guarantees.drift import Reference
from cascade.guarantees.risk_control import Promise
from cascade.labels import LabelTree
from cascade.policy import OperatingPoint, best_of, in_scope
from cascade.training.calibration.conformal_sets import fit_label_sets
from cascade.training.calibration.cross_fitting import BudgetStep, Calibration
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
from cascade.training.calibration.outlier_exposure import METHOD_WITH_STRANGERS, Strangers, exposed
from cascade.training.calibration.risk_control import default_point, fit_promise
from cascade.training.calibration.scope_limits import StrangeAnswers
from cascade.training.calibration.sources import promised_collections, rows_of
from cascade.training.calibration.stage_logits import StageLogits

__all__ = ["Guarantees", "fit_guarantees"]

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Guarantees:
    """The result of `fit_guarantees`.

    Attributes:
        scope: `scope.onnx`; None if there are too few photos.
        point: the default operating point.
        promise: None if nothing can be promised.
        budget: the dial, every step with promises of its own; None without experts.
        label_sets: None if there are too few photos.
        reference: for `cascade.guarantees.drift`.
        summary: how the fit went, for metrics.json and the card.
    """

    scope: onnx.ModelProto | None
    point: OperatingPoint
    promise: Promise | None
    budget: BudgetCurve | None
    label_sets: LabelSets | None
    reference: Reference
    summary: dict[str, Any]


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
        known: outputs of the general model for the N calibration photos.
        tree: the bundle's labels.
        seed: of the partitions.
        max_error: share of wrong answers that the default operating point should promise.
        metadata: goes into the graph's metadata_props.
        strangers: photos that are none of the labels; None builds the scope stage without them.
    """
    fit, held_out = known.rows(calibration.fit_rows), known.rows(calibration.held_out_rows)
    scope, limit, fit_scores, scope_scores = _fit_scope(fit, held_out, seed, metadata, strangers)
    strange = partial(_strange_answers, calibration, *_judges(scope, strangers))

    def tested(step: BudgetStep) -> tuple[Promise | None, OperatingPoint, LabelledAnswers]:
        held_out_answers = label_answers(step.held_out_probabilities, held_out.targets, scope_scores, tree)
        fit_answers = label_answers(step.fit_probabilities, fit.targets, fit_scores, tree)
        promise = fit_promise(
            fit_answers,
            held_out_answers,
            groups=_by_collection(fit_answers, fit.sources, held_out_answers, held_out.sources),
            max_error=max_error,
            cost_weight=step.cost_weight,
            scope_threshold=limit,
            strangers=strange(step),
        )
        return promise, default_point(promise, max_error, step.cost_weight, limit), held_out_answers

    default = calibration.default
    promise, point, held_out_answers = tested(default)
    steps = []
    for step in calibration.dial:
        own, own_point, _ = (promise, point, held_out_answers) if step is default else tested(step)
        steps.append(_budget_point(step, own, own_point))
    return Guarantees(
        scope=scope,
        point=point,
        promise=promise,
        budget=BudgetCurve(default.budget, tuple(steps)) if steps else None,
        label_sets=fit_label_sets(
            (default.fit_probabilities, fit.targets), (default.held_out_probabilities, held_out.targets)
        ),
        reference=_reference(default, scope_scores, tree),
        summary={
            "scope": None if scope_scores is None else _kept(scope_scores, limit, strangers),
            "strangers": _answered_strangers(strange(default), promise, point),
            "promise": _describe(promise, point, held_out_answers),
        },
    )


def _by_collection(
    fit_answers: LabelledAnswers,
    fit_sources: Sequence[str],
    held_out_answers: LabelledAnswers,
    held_out_sources: Sequence[str],
) -> dict[str, tuple[LabelledAnswers, LabelledAnswers]]:
    """Return the answers of both parts for every collection of photos that gets a promise of its own."""
    return {
        name: (
            fit_answers.rows(rows_of(fit_sources, name)),
            held_out_answers.rows(rows_of(held_out_sources, name)),
        )
        for name in promised_collections(held_out_sources)
    }


def _budget_point(step: BudgetStep, promise: Promise | None, point: OperatingPoint) -> BudgetPoint:
    metrics = {name: step.metrics[name] for name in ("mean_cost", "accuracy", "nll", "deferral_rate")}
    return BudgetPoint(step.budget, **metrics, operating_point=point, promise=promise)


def _reference(default: BudgetStep, scope_scores: Float32s | None, tree: LabelTree) -> Reference:
    """Return what drift is measured against: the answers on the held-out photos."""
    best = default.held_out_probabilities.argmax(1)
    counts = np.bincount(best, minlength=len(tree.labels))
    return Reference(
        confidences=_sorted(default.held_out_probabilities.max(1)),
        scope_scores=() if scope_scores is None else _sorted(scope_scores),
        labels={label: int(count) for label, count in zip(tree.labels, counts, strict=True)},
        deferred=int(default.held_out_deferred.any(1).sum()),
    )


def _fit_scope(
    fit: InScope, held_out: InScope, seed: int, metadata: Mapping[str, str], strangers: Strangers | None
) -> tuple[onnx.ModelProto | None, float | None, Float32s | None, Float32s | None]:
    """Return the scope stage, its threshold, and the scores of both parts; nothing with too few photos."""
    if len(fit.targets) < FEWEST_KNOWN:
        return None, None, None, None
    add_score = mahalanobis if strangers is None else exposed(strangers.part(held_out=False))
    scope = scope_graph(fit, metadata, add_score)
    fit_scores = cross_fitted_scores(fit, seed, add_score)
    # Rounded upwards to what bundle.json says, before anything is tested with it.
    limit = math.ceil(float(np.quantile(fit_scores, KEPT)) * 1e6) / 1e6
    return scope, limit, fit_scores, run_scope(scope, held_out.logits, held_out.embedding)


def _judges(
    scope: onnx.ModelProto | None, strangers: Strangers | None
) -> tuple[StageLogits | None, Float32s | None]:
    """Return outputs and scope scores of strangers that fitted nothing; nothing without any."""
    held_out = None if strangers is None else strangers.part(held_out=True)
    if scope is None or held_out is None or not len(held_out.logits):
        return None, None
    logits = StageLogits(held_out.logits, held_out.experts, np.zeros(len(held_out.logits), np.int64))
    return logits, run_scope(scope, held_out.logits, held_out.embedding)


def _strange_answers(
    calibration: Calibration, judges: StageLogits | None, scores: Float32s | None, step: BudgetStep
) -> StrangeAnswers | None:
    """Return what is said of strangers that fitted nothing; None without any."""
    if judges is None or scores is None:
        return None
    best = best_of(calibration.answers(judges, step.cost_weight), calibration.tree)
    return StrangeAnswers(best.leaf_confidence, best.parent_confidence, scores.astype(np.float64))


def _answered_strangers(
    strange: StrangeAnswers | None, promise: Promise | None, point: OperatingPoint
) -> dict[str, Any] | None:
    """Return the shares of strangers that are answered by default and at the smallest promise."""
    if strange is None:
        return None
    found: dict[str, Any] = {"photos": len(strange.score), "answered": strange.answered(point)}
    if promise is not None:
        found["answered_at_smallest"] = strange.answered(promise.operating_point(promise.smallest))
    return found


def _kept(scope_scores: Float32s, limit: float | None, strangers: Strangers | None) -> dict[str, Any]:
    kept = np.mean(in_scope(scope_scores, limit))
    method = METHOD if strangers is None else METHOD_WITH_STRANGERS
    return {"method": method, "threshold": limit, "kept": round(float(kept), 4)}


def _describe(
    promise: Promise | None, point: OperatingPoint, held_out_answers: LabelledAnswers
) -> dict[str, Any]:
    counts = held_out_answers.counts(
        np.array([point.leaf_threshold]), np.array([point.parent_threshold]), point.scope_threshold
    )
    labels, answered = float(counts.labels[0]), float(counts.answered[0])
    n = len(held_out_answers)
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
