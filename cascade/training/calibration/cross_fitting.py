"""Fits arbiter and router, and measures them on photos that had no part in the fit.

The split `calibration` is cut in two, stratified by label:

    fit part (1/2)  temperatures and weights of the arbiter, then the router; their metrics are
                    cross-fitted: every photo is scored by a fit that did not see it
    held out (1/2)  nothing here; `cascade.training.calibration.guarantees` builds every promise on it

The split `test` is never seen here.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from cascade.arrays import Bools, Float64s, Ints
from cascade.evaluation.calibration_metrics import expected_calibration_error
from cascade.evaluation.metrics import negative_log_likelihood
from cascade.labels import LabelTree
from cascade.training.calibration.arbiter import arbitrate, cross_fit, fit_arbiter
from cascade.training.calibration.budget_steps import BUDGETS, choose_default, cost_weights, on_the_frontier
from cascade.training.calibration.router import expected_gain, fit_router
from cascade.training.calibration.stage_logits import StageLogits
from cascade.training.export.decision_graphs import ArbiterParameters, RouterParameters

__all__ = ["FEWEST_TO_CALIBRATE", "BudgetStep", "Calibration", "calibrate", "cut", "describe"]

#: One of so many parts of the photos is held out. The arbiter has a dozen numbers; a promise needs photos.
_PARTS: Final = 2
#: Fewer photos cannot be cut in two parts that say anything.
FEWEST_TO_CALIBRATE: Final = 3


@dataclass(frozen=True, slots=True)
class BudgetStep:
    """One step of the dial: which experts are asked, and the answers that follow.

    Attributes:
        budget: step of the dial, see `cascade.guarantees.budget`; 0 without experts.
        cost_weight: gain that one unit of cost must bring for an expert to be asked.
        metrics: mean_cost, accuracy, nll, ece and deferral_rate of the fit part, cross-fitted.
        fit_probabilities: (F, L), cross-fitted.
        held_out_probabilities: (H, L), of the finished arbiter and router.
        held_out_deferred: (H, E), which experts each photo goes to.
    """

    budget: float
    cost_weight: float
    metrics: dict[str, float]
    fit_probabilities: Float64s
    held_out_probabilities: Float64s
    held_out_deferred: Bools


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that was fitted.

    Attributes:
        tree: the bundle's labels.
        experts: expert -> its labels, without "not mine".
        costs: (E,), of every expert, in units of one run of the general model.
        arbiter: numbers of `arbiter.onnx`.
        router: numbers of `router.onnx`; None without experts.
        fit_rows: places of the F photos that fitted arbiter and router.
        held_out_rows: places of the other H photos.
        default: the step of the default operating point.
        dial: every step of the dial; empty without experts.
        summary: how the fit went, for metrics.json and the card.
    """

    tree: LabelTree
    experts: Mapping[str, Sequence[str]]
    costs: Float64s
    arbiter: ArbiterParameters
    router: RouterParameters | None
    fit_rows: Ints
    held_out_rows: Ints
    default: BudgetStep
    dial: tuple[BudgetStep, ...]
    summary: dict[str, Any]

    def answers(self, logits: StageLogits, cost_weight: float) -> Float64s:
        """Return probabilities (N, L) of other photos; nobody is asked where the experts said nothing."""
        nobody = np.zeros((len(logits.general), len(self.experts)), np.bool_)
        if self.router is None or not logits.experts:
            silent = {name: np.zeros((len(nobody), len(own) + 1)) for name, own in self.experts.items()}
            said = dataclasses.replace(logits, experts=silent)
            return arbitrate(self.arbiter, said, self.tree, self.experts, nobody)
        asked = expected_gain(self.router, logits, self.tree, self.experts) > cost_weight * self.costs
        return arbitrate(self.arbiter, logits, self.tree, self.experts, asked)


def cut(targets: Ints, seed: int) -> tuple[Ints, Ints]:
    """Return the places of the fit part and of the held-out part, stratified as far as labels have photos."""
    often = np.bincount(targets).max() >= _PARTS
    parts = (StratifiedKFold if often else KFold)(_PARTS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label of one or two photos is missing in a part; nothing to act on.
        warnings.filterwarnings("ignore", message="The least populated class")
        *_, (fit_rows, held_out_rows) = parts.split(targets, targets)  # the smaller part is held out
    return fit_rows, held_out_rows


def calibrate(
    logits: StageLogits,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    costs: Sequence[float],
    *,
    seed: int,
) -> Calibration:
    """Fit arbiter and router.

    Args:
        logits: on the calibration photos.
        tree: the bundle's labels.
        experts: expert -> its labels, without "not mine".
        costs: of every expert, in units of one run of the general model.
        seed: of the partitions.
    """
    fit_rows, held_out_rows = cut(logits.targets, seed)
    fit, held_out = logits.rows(fit_rows), logits.rows(held_out_rows)
    arbiter = fit_arbiter(fit, tree, experts)
    folds, answers = cross_fit(fit, tree, experts, seed)
    prices, n = np.asarray(costs, dtype=np.float64), len(fit_rows)
    bundle = tree, experts, prices

    def ask(budget: float, cost_weight: float, deferred: Bools, held_out_deferred: Bools) -> BudgetStep:
        probabilities = answers(deferred)
        metrics = {
            "mean_cost": round(1.0 + float((deferred @ prices).mean()), 4),
            "deferral_rate": round(float(deferred.any(1).mean()), 4),
            **describe(probabilities, fit.targets),
        }
        unseen = arbitrate(arbiter, held_out, tree, experts, held_out_deferred)
        return BudgetStep(budget, cost_weight, metrics, probabilities, unseen, held_out_deferred)

    nobody, nobody_held_out = (
        np.zeros((len(rows), len(experts)), np.bool_) for rows in (fit_rows, held_out_rows)
    )
    never = ask(0.0, 0.0, nobody, nobody_held_out)
    summary: dict[str, Any] = {"fit_photos": n, "held_out_photos": len(held_out_rows)}
    summary["arbiter"] = arbiter.to_dict()
    if not experts:
        return Calibration(*bundle, arbiter, None, fit_rows, held_out_rows, never, (), summary)
    router, gain = fit_router(fit, tree, experts, arbiter.temperature, folds, answers)
    held_out_gain = expected_gain(router, held_out, tree, experts)
    dial = tuple(
        ask(budget, weight, gain > weight * prices, held_out_gain > weight * prices)
        for budget, weight in zip(BUDGETS, cost_weights(gain, prices), strict=True)
    )
    always = ask(1.0, 0.0, ~nobody, ~nobody_held_out).metrics
    default = dial[choose_default([step.metrics for step in dial], never.metrics, always)]
    dial = tuple(dial[place] for place in on_the_frontier([step.metrics for step in dial]))
    summary["router"] = {
        "never": never.metrics,
        "always": always,
        "chosen": _described(default),
        "curve": [_described(step) for step in dial],
    }
    return Calibration(*bundle, arbiter, router, fit_rows, held_out_rows, default, dial, summary)


def _described(step: BudgetStep) -> dict[str, float]:
    return {"budget": step.budget, "cost_weight": step.cost_weight, **step.metrics}


def describe(probabilities: Float64s, targets: Ints) -> dict[str, float]:
    """Return accuracy, NLL and ECE of probabilities (N, L), rounded below what chance does to them."""
    best = probabilities.argmax(1)
    return {
        "accuracy": round(float((best == targets).mean()), 4),
        "nll": round(negative_log_likelihood(probabilities, targets), 4),
        "ece": round(expected_calibration_error(probabilities.max(1), best == targets), 4),
    }
