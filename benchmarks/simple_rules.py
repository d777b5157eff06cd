"""Simple rules for asking experts and for combining their answers, beside the router and the arbiter.

    python benchmarks/simple_rules.py DATA [--bundle DIR] [--cache FILE.npz]

Everything is cross-fitted on the fit part of the split `calibration`; top-1, NLL and ECE.

Asking. The router asks where it expects the most gain per cost. The rules ask about the photos that look most
doubtful, by the largest probability of the calibrated general model, by its margin over the second, or by
entropy: first the likeliest expert of each, then the second likeliest. Every rule may spend what the router
spent, not more, and at most one question less; the arbiter is the same.

Combining. The rules take plain softmax outputs, in which an expert's "not mine" is left to the general
model's share of the other labels, and each gets one temperature of its own, cross-fitted, so that it does not
lose by the overconfidence of networks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from promise_partitions import outputs_of_everybody
from scipy.optimize import minimize_scalar

from cascade.arrays import Bools, Float64s, Ints, softmax
from cascade.bundle.manifest import Bundle
from cascade.evaluation.metrics import negative_log_likelihood
from cascade.labels import LabelTree
from cascade.training.calibration.arbiter import Answers, cross_fit, share_with_others
from cascade.training.calibration.cross_fitting import calibrate, describe
from cascade.training.calibration.router import fit_router
from cascade.training.calibration.stage_logits import Fold, StageLogits

_SHORT_OF: Final = 1e-9


# --- whom to ask --------------------------------------------------------------------------------------


def doubt_orders(
    before: Float64s, labels: Sequence[str], experts: Mapping[str, Sequence[str]]
) -> dict[str, Ints]:
    """Return for each simple rule in which order it asks: N * E numbers, photo * E + expert.

    Args:
        before: (N, L), calibrated, of the general model alone.
        labels: the L labels.
        experts: expert -> its labels.
    """
    first, second = np.sort(before, axis=1)[:, ::-1][:, :2].T
    entropy = -(before * np.log(np.maximum(before, 1e-12))).sum(1)
    mass = np.stack(
        [before[:, [labels.index(label) for label in own]].sum(1) for own in experts.values()], axis=1
    )
    likely = np.argsort(-mass, axis=1, kind="stable")
    orders = {}
    for name, sure in (("confidence", first), ("margin", first - second), ("entropy", -entropy)):
        photos = np.argsort(sure, kind="stable")
        orders[name] = np.concatenate(
            [photos * len(experts) + likely[photos, rank] for rank in range(len(experts))]
        )
    return orders


def asked_within(order: Ints, costs: Float64s, photos: int, spent: float) -> Bools:
    """Return who is asked, (N, E), when questions are put in an order until a mean extra cost is spent.

    Args:
        order: numbers photo * E + expert, each at most once.
        costs: (E,).
        photos: N.
        spent: mean per photo; never exceeded.
    """
    total = np.cumsum(costs[order % len(costs)]) / photos
    deferred = np.zeros(photos * len(costs), dtype=np.bool_)
    deferred[order[: np.searchsorted(total, spent + _SHORT_OF, side="right")]] = True
    return deferred.reshape(photos, len(costs))


def compare_asking(
    before: Float64s,
    by_router: Mapping[float, Bools],
    targets: Ints,
    answers: Answers,
    costs: Float64s,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Compare the router with simple rules at equal mean cost.

    Args:
        before: (N, L), calibrated and cross-fitted, of the general model alone.
        by_router: budget -> (N, E), whom the router asks; also sets what the rules may spend.
        targets: (N,).
        answers: of the arbiter, cross-fitted.
        costs: (E,).
        tree: the bundle's labels.
        experts: expert -> its labels.

    Returns:
        ``rules``: rule -> rows with budget, mean_cost, accuracy, nll and ece; ``mean``: rule -> the same
        averaged over the rows; ``best``: the rule of the lowest mean nll.
    """
    orders = doubt_orders(before, tree.labels, experts)
    rules: dict[str, list[dict[str, float]]] = {}
    for budget, routed in by_router.items():
        spent = float((routed @ costs).mean())
        by_rule = {name: asked_within(order, costs, len(targets), spent) for name, order in orders.items()}
        for name, deferred in {"expected gain": routed, **by_rule}.items():
            cost = 1.0 + float((deferred @ costs).mean())
            row = {"budget": budget, "mean_cost": round(cost, 4), **describe(answers(deferred), targets)}
            rules.setdefault(name, []).append(row)
    mean = {
        name: {
            key: round(float(np.mean([row[key] for row in rows])), 4)
            for key in ("mean_cost", "accuracy", "nll", "ece")
        }
        for name, rows in rules.items()
    }
    return {"rules": rules, "mean": mean, "best": min(mean, key=lambda name: mean[name]["nll"])}


# --- how to combine -----------------------------------------------------------------------------------


def combine(
    logits: StageLogits, tree: LabelTree, experts: Mapping[str, Sequence[str]], deferred: Bools
) -> dict[str, Float64s]:
    """Return log probabilities (N, L) of every simple rule; see the module for what an expert's vote is."""
    log_p = torch.log_softmax(torch.from_numpy(logits.general.astype(np.float64)), dim=1)
    opinions = [log_p]
    for name, own in experts.items():
        log_q = torch.log_softmax(torch.from_numpy(logits.experts[name].astype(np.float64)), dim=1)
        opinions.append(share_with_others(log_p, log_q, tree, own))
    votes = np.stack([vote.numpy() for vote in opinions])  # (1 + E, N, L)
    voting = np.concatenate([np.ones((1, len(deferred)), dtype=np.bool_), deferred.T])[:, :, None]
    count = voting.sum(0)
    surest = np.where(voting[:, :, 0], votes.max(2), -np.inf).argmax(0)
    return {
        "the most confident": votes[surest, np.arange(len(deferred))],
        "average": np.log((np.exp(votes) * voting).sum(0) / count),
        "product of experts": (votes * voting).sum(0) / count,
        "general alone": votes[0],
    }


def compare_combining(
    logits: StageLogits,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    folds: Sequence[Fold],
    answers: Answers,
    ways: Mapping[str, Bools],
) -> dict[str, Any]:
    """Compare the arbiter with simple rules.

    Args:
        logits: of N photos.
        tree: the bundle's labels.
        experts: expert -> its labels.
        folds: on which the temperature of each rule is cross-fitted.
        answers: of the arbiter, cross-fitted on the same folds.
        ways: name -> which experts are asked, (N, E).

    Returns:
        way -> ``rules``: rule -> accuracy, nll, ece; ``best``: the rule of the lowest nll.
    """
    found: dict[str, Any] = {}
    for way, deferred in ways.items():
        rules = {"arbiter": describe(answers(deferred), logits.targets)}
        for name, logs in combine(logits, tree, experts, deferred).items():
            rules[name] = describe(_tempered(logs, logits.targets, folds), logits.targets)
        found[way] = {"rules": rules, "best": min(rules, key=lambda name: rules[name]["nll"])}
    return found


def _tempered(logs: Float64s, targets: Ints, folds: Sequence[Fold]) -> Float64s:
    """Return probabilities (N, L) after one temperature, fitted for every fold on the others."""
    out = np.zeros_like(logs)
    for train, held_out in folds:
        fitted = minimize_scalar(
            lambda x, train=train: negative_log_likelihood(_soften(logs[train], np.exp(x)), targets[train]),
            bounds=(-2.0, 2.0),
            method="bounded",
        )
        out[held_out] = _soften(logs[held_out], float(np.exp(fitted.x)))
    return out


def _soften(logs: Float64s, temperature: float) -> Float64s:
    return softmax(logs / temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="outputs of the networks, .npz")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    if not bundle.experts:
        sys.exit("the bundle has no experts: there is nothing to ask and nothing to combine")
    stored = outputs_of_everybody(bundle, given.data, given.cache)
    tree, costs = bundle.tree, np.array([expert.cost for expert in bundle.experts])
    experts = {expert.name: expert.labels[:-1] for expert in bundle.experts}
    chosen = stored["calibration"].astype(bool)
    logits = StageLogits(
        stored["general"][chosen],
        {name: stored[f"expert {name}"][chosen] for name in experts},
        stored["targets"][chosen],
    )
    calibration = calibrate(logits, tree, experts, costs.tolist(), seed=given.seed)
    fit = logits.rows(calibration.fit_rows)
    folds, answers = cross_fit(fit, tree, experts, given.seed)
    _, gain = fit_router(fit, tree, experts, calibration.arbiter.temperature, folds, answers)
    never = answers(np.zeros((len(fit.targets), len(experts)), dtype=np.bool_))
    routed = {step.budget: gain > step.cost_weight * costs for step in calibration.dial if step.budget > 0}
    asking = compare_asking(never, routed, fit.targets, answers, costs, tree, experts)
    for name, row in asking["mean"].items():
        print(
            f"asking     {name:<20} {_figures(row)}, mean over budgets {', '.join(f'{b:g}' for b in routed)}"
        )
    deferred = {
        "everybody": np.ones_like(gain, dtype=np.bool_),
        "the router, default": gain > calibration.default.cost_weight * costs,
    }
    for way, compared in compare_combining(fit, tree, experts, folds, answers, deferred).items():
        for name, row in compared["rules"].items():
            print(f"combining  {name:<20} {_figures(row)}, asked: {way}")


def _figures(row: Mapping[str, float]) -> str:
    return f"top-1 {row['accuracy']:.1%}, NLL {row['nll']:.3f}, ECE {row['ece']:.1%}"


if __name__ == "__main__":
    main()
