"""Calibration. In: what the exported graphs say of the calibration photos. Out: arbiter and router, and what
they say of photos that had no part in them.

The split `calibration` is cut in two, stratified by label:

    fit part (2/3)  temperatures and weights of the arbiter, then the router; figures about them are
                    cross-fitted: every photo is judged by numbers that it had no part in
    held out (1/3)  nothing here; `cascade.training.guarantees` builds every promise on it

The split `test` is never seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.labels import LabelTree
from cascade.training.graphs import ArbiterParameters, RouterParameters, router_features

__all__ = ["Calibration", "Outputs", "arbitrate", "calibrate", "expected_gain"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
#: Places that fit, places that are judged.
Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

_FOLDS: Final = 5
#: Costs per unit of which the gain is compared when the operating point is chosen.
_COST_WEIGHTS: Final = (
    0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3
)  # fmt: skip
#: Share of what asking everybody brings that the operating point must keep, in negative log likelihood.
_KEPT: Final = 0.75


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of the exported graphs on N labelled photos, every expert asked.

    Attributes:
        general: (N, L) logits.
        experts: expert -> (N, K + 1) logits.
        targets: (N,) index of the right label.
    """

    general: FloatArray
    experts: Mapping[str, FloatArray]
    targets: npt.NDArray[np.int64]

    def rows(self, index: npt.NDArray[Any]) -> Outputs:
        """Return a subset of the photos."""
        return Outputs(
            self.general[index], {k: v[index] for k, v in self.experts.items()}, self.targets[index]
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that was fitted.

    Attributes:
        arbiter: numbers of `arbiter.onnx`.
        router: numbers of `router.onnx`; None without experts.
        cost_weight: gain that one unit of cost must bring for an expert to be asked.
        fit_rows: places of the F photos that fitted arbiter and router.
        held_out_rows: places of the other H photos.
        fit_probabilities: (F, L), cross-fitted, experts asked by the router.
        held_out_probabilities: (H, L), of the finished arbiter, experts asked by the router.
        held_out_asked: (H, E).
        facts: how it was chosen, for metrics.json and the card.
    """

    arbiter: ArbiterParameters
    router: RouterParameters | None
    cost_weight: float
    fit_rows: npt.NDArray[np.int64]
    held_out_rows: npt.NDArray[np.int64]
    fit_probabilities: FloatArray
    held_out_probabilities: FloatArray
    held_out_asked: BoolArray
    facts: dict[str, Any]


def calibrate(
    outputs: Outputs,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    costs: Sequence[float],
    *,
    seed: int,
) -> Calibration:
    """Fit arbiter and router.

    Args:
        outputs: on the calibration photos.
        tree: the bundle's labels.
        experts: expert -> its labels, without "not mine".
        costs: of every expert, in units of one run of the general model.
        seed: of the partitions.
    """
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    fit_rows, held_out_rows = next(iter(folds.split(outputs.general, outputs.targets)))
    fit_part, held_out = outputs.rows(fit_rows), outputs.rows(held_out_rows)
    arbiter = _fit_arbiter(fit_part, tree, experts)
    facts: dict[str, Any] = {
        "fit_photos": len(fit_rows),
        "held_out_photos": len(held_out_rows),
        "arbiter": arbiter.to_dict(),
    }
    router, cost_weight = None, 0.0
    asked = np.zeros((len(held_out_rows), len(experts)), dtype=np.bool_)
    if experts:
        router, cost_weight, fit_probabilities, facts["router"] = _fit_router(
            fit_part, tree, experts, np.asarray(costs), arbiter.temperature, seed
        )
        gain = expected_gain(router, held_out, tree, experts)
        asked = gain > cost_weight * np.asarray(costs)
    else:
        _, answers = _cross_fit(fit_part, tree, experts, seed)
        fit_probabilities = answers(np.zeros((len(fit_rows), 0), dtype=np.bool_))
    return Calibration(
        arbiter=arbiter,
        router=router,
        cost_weight=cost_weight,
        fit_rows=fit_rows,
        held_out_rows=held_out_rows,
        fit_probabilities=fit_probabilities,
        held_out_probabilities=arbitrate(arbiter, held_out, tree, experts, asked),
        held_out_asked=asked,
        facts=facts,
    )


# --- arbiter ------------------------------------------------------------------------------------------


def arbitrate(
    parameters: ArbiterParameters,
    outputs: Outputs,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    asked: BoolArray,
) -> FloatArray:
    """Compute what `arbiter.onnx` computes, (N, L); its formula stands in `cascade.training.graphs`."""
    packed = _pack(parameters)
    with torch.no_grad():
        log_z = _pool(torch.from_numpy(packed), _tensors(outputs), tree, experts, asked)
    return np.exp(log_z.numpy())


def _pack(parameters: ArbiterParameters) -> FloatArray:
    return np.concatenate(
        [
            [np.log(parameters.temperature)],
            np.log(parameters.expert_temperature),
            parameters.expert_weight,
            parameters.general_shift,
        ]
    )


def _tensors(outputs: Outputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return (
        torch.from_numpy(outputs.general.astype(np.float64)),
        {name: torch.from_numpy(v.astype(np.float64)) for name, v in outputs.experts.items()},
    )


def _pool(
    packed: torch.Tensor,
    tensors: tuple[torch.Tensor, dict[str, torch.Tensor]],
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    asked: BoolArray,
) -> torch.Tensor:
    """Log probabilities (N, L), differentiable in the packed parameters (1 + 3 E,)."""
    count = len(experts)
    general, said = tensors
    log_p = torch.log_softmax(general / packed[0].exp(), dim=1)
    total = log_p
    for column, (name, own) in enumerate(experts.items()):
        log_q = torch.log_softmax(said[name] / packed[1 + column].exp(), dim=1)
        position = [list(own).index(label) if label in own else len(own) for label in tree.labels]
        foreign = torch.tensor([label not in own for label in tree.labels], dtype=torch.float64)
        mass = (log_p.exp() * foreign).sum(1, keepdim=True).clamp_min(1e-6)
        log_r = log_q[:, position] + (log_p - mass.log()) * foreign
        vote = packed[1 + count + column] * log_r + packed[1 + 2 * count + column] * log_p
        total = total + vote * torch.from_numpy(asked[:, [column]].astype(np.float64))
    return torch.log_softmax(total, dim=1)


def _fit_arbiter(
    outputs: Outputs, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> ArbiterParameters:
    """Minimise the negative log likelihood over everything that a router may do.

    Nobody asked, each expert alone, each pair, all of them: the same few numbers must serve every case.
    """
    count = len(experts)
    masks = [np.zeros(count, dtype=np.bool_)]
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            mask = np.zeros(count, dtype=np.bool_)
            mask[list(chosen)] = True
            masks.append(mask)
    tensors, targets = _tensors(outputs), torch.from_numpy(outputs.targets)
    start = np.concatenate([np.zeros(1 + count), np.full(count, 0.5), np.full(count, -0.3)])
    packed = torch.tensor(start, requires_grad=True)
    prior = torch.tensor(start)
    optimizer = torch.optim.LBFGS([packed], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for mask in masks:
            asked = np.broadcast_to(mask, (len(targets), count)).copy()
            log_z = _pool(packed, tensors, tree, experts, asked)
            loss = loss + torch.nn.functional.nll_loss(log_z, targets) / len(masks)
        # A weak pull to the start keeps the numbers sane where a group has few photos.
        loss = loss + 1e-3 * (packed - prior).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    values = packed.detach().numpy()
    return ArbiterParameters(
        temperature=float(np.exp(values[0])),
        expert_temperature=np.exp(values[1 : 1 + count]),
        expert_weight=values[1 + count : 1 + 2 * count].copy(),
        general_shift=values[1 + 2 * count :].copy(),
    )


def _cross_fit(
    outputs: Outputs, tree: LabelTree, experts: Mapping[str, Sequence[str]], seed: int
) -> tuple[list[Fold], Callable[[BoolArray], FloatArray]]:
    """Return folds, and what gives probabilities (N, L) for who was asked (N, E), cross-fitted on them."""
    # Not stratified: a rare label may have fewer photos than there are folds.
    folds = list(KFold(_FOLDS, shuffle=True, random_state=seed).split(outputs.general))
    arbiters = [_fit_arbiter(outputs.rows(train), tree, experts) for train, _ in folds]

    def answers(asked: BoolArray) -> FloatArray:
        out = np.zeros((len(outputs.targets), len(tree.labels)))
        for arbiter, (_, fold) in zip(arbiters, folds, strict=True):
            out[fold] = arbitrate(arbiter, outputs.rows(fold), tree, experts, asked[fold])
        return out

    return folds, answers


# --- router -------------------------------------------------------------------------------------------


def _fit_router(
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
    folds, answers = _cross_fit(outputs, tree, experts, seed)
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

    calm = _softmax(outputs.general / temperature)
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
    calm = _softmax(outputs.general / router.temperature)
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


def _softmax(x: FloatArray) -> FloatArray:
    exponent = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(exponent / exponent.sum(1, keepdims=True))
