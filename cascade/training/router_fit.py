"""Fitting the router. In: what everybody said of labelled photos. Out: the numbers of `router.onnx`, and the
gain that it expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.labels import LabelTree
from cascade.training.arbiter_fit import cross_fit
from cascade.training.calibration_data import BoolArray, FloatArray, Outputs, softmax
from cascade.training.graphs import RouterParameters, router_features

__all__ = ["expected_gain", "fit_router"]

#: Costs per unit of which the gain is compared when the operating point is chosen.
_COST_WEIGHTS: Final = (
    0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3
)  # fmt: skip
#: Share of what asking everybody brings that the operating point must keep, in negative log likelihood.
_KEPT: Final = 0.75


def fit_router(
    outputs: Outputs,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    costs: FloatArray,
    temperature: float,
    seed: int,
) -> tuple[RouterParameters, float, FloatArray, dict[str, Any]]:
    """Fit the router on cross-fitted arbiter answers; choose the cost weight on cross-fitted gains.

    Returns the router, the cost weight, cross-fitted probabilities (N, L) at it, and facts.
    """
    count, n = len(experts), len(outputs.targets)
    folds, answers = cross_fit(outputs, tree, experts, seed)
    nobody, everybody = np.zeros((n, count), dtype=np.bool_), np.ones((n, count), dtype=np.bool_)
    before = answers(nobody)
    # Of calibrated answers, the mean of the largest probability is the probability to be right, and it
    # varies far less from photo to photo than the fact of being right, of which few photos change.
    right_before = before.max(1)
    right_after = np.zeros((n, count))
    for column in range(count):
        only = nobody.copy()
        only[:, column] = True
        right_after[:, column] = answers(only).max(1)

    calm = softmax(outputs.general / temperature)
    cross_gain = np.zeros((n, count))
    weights: dict[str, list[FloatArray]] = {"before": [], "after": []}
    for column, own in enumerate(experts.values()):
        x = router_features(calm, tree.labels, own)
        for side, right in (("before", right_before), ("after", right_after[:, column])):
            weights[side].append(_logistic(x, right))
            sign = 1.0 if side == "after" else -1.0
            for train, held_out in folds:
                w = _logistic(x[train], right[train])
                cross_gain[held_out, column] += sign * _sigmoid(x[held_out] @ w[:-1] + w[-1])
    router = RouterParameters(temperature, np.array(weights["before"]), np.array(weights["after"]))

    def describe(probabilities: FloatArray, asked: BoolArray) -> dict[str, float]:
        picked = probabilities[np.arange(n), outputs.targets]
        return {
            "accuracy": round(float((probabilities.argmax(1) == outputs.targets).mean()), 4),
            "nll": round(float(-np.log(np.maximum(picked, 1e-12)).mean()), 4),
            "mean_cost": round(1.0 + float((asked @ costs).mean()), 4),
            "deferral_rate": round(float(asked.any(1).mean()), 4),
        }

    always = describe(answers(everybody), everybody)
    curve = []
    for weight in _COST_WEIGHTS:
        asked = cross_gain > weight * costs
        curve.append({"cost_weight": weight, **describe(answers(asked), asked)})
    # The cheapest point that keeps most of what asking everybody brings, within half its cost. Judged by
    # the likelihood: a difference in accuracy would be chance on so few photos.
    never = describe(before, nobody)
    affordable = [c for c in curve if c["mean_cost"] <= always["mean_cost"] / 2] or curve[-1:]
    enough = never["nll"] - _KEPT * max(never["nll"] - always["nll"], 0.0)
    good = [c for c in affordable if c["nll"] <= enough] or [min(affordable, key=lambda c: c["nll"])]
    chosen = min(good, key=lambda c: c["mean_cost"])
    facts = {
        "never": never,
        "always": always,
        "curve": curve,
        "chosen": chosen,
        "confidence_baseline": _confidence_baseline(before, tree, experts, describe, answers, chosen),
    }
    weight = float(chosen["cost_weight"])
    return router, weight, answers(cross_gain > weight * costs), facts


def _confidence_baseline(
    before: FloatArray,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    describe: Any,
    answers: Any,
    chosen: Mapping[str, float],
) -> dict[str, float]:
    """The rule to beat: ask the likeliest expert about the least confident photos, equally often."""
    n, count = len(before), len(experts)
    confidence = before.max(1)
    mass = np.stack(
        [before[:, [tree.labels.index(label) for label in own]].sum(1) for own in experts.values()], axis=1
    )
    asked = np.zeros((n, count), dtype=np.bool_)
    doubtful = np.argsort(confidence)[: round(n * (chosen["mean_cost"] - 1.0))]
    asked[doubtful, mass[doubtful].argmax(1)] = True
    result: dict[str, float] = describe(answers(asked), asked)
    return result


def expected_gain(
    router: RouterParameters, outputs: Outputs, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> FloatArray:
    """Compute what `router.onnx` computes, (N, E)."""
    calm = softmax(outputs.general / router.temperature)
    columns = []
    for column, own in enumerate(experts.values()):
        x = router_features(calm, tree.labels, own)
        after, before = router.after[column], router.before[column]
        columns.append(_sigmoid(x @ after[:-1] + after[-1]) - _sigmoid(x @ before[:-1] + before[-1]))
    return np.stack(columns, axis=1)


def _logistic(x: FloatArray, share: FloatArray) -> FloatArray:
    """Weights and intercept (F + 1,) on unscaled features, for targets in 0..1; the scaling is folded in."""
    if share.max() - share.min() < 1e-9:
        return np.append(np.zeros(x.shape[1]), np.log((share[0] + 1e-4) / (1 - share[0] + 1e-4)))
    # A target of 0.7 is seven tenths of a right answer and three tenths of a wrong one.
    both, wanted = np.concatenate([x, x]), np.repeat([True, False], len(x))
    weight = np.clip(np.concatenate([share, 1 - share]), 0.0, None)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
    model.fit(both, wanted, logisticregression__sample_weight=weight)
    scaler, logistic = model[0], model[1]
    slope = logistic.coef_[0] / scaler.scale_
    return np.append(slope, logistic.intercept_[0] - float(slope @ scaler.mean_))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
