"""Fits the arbiter; its formula stands in `cascade.training.export.decision_graphs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import torch
from sklearn.model_selection import KFold

from cascade.arrays import Bools, Float64s, softmax
from cascade.labels import LabelTree
from cascade.training.calibration.stage_logits import Fold, StageLogits
from cascade.training.export.decision_graphs import ArbiterParameters

__all__ = ["Answers", "arbitrate", "cross_fit", "fit_arbiter", "share_with_others"]

#: From who is asked, (N, E), to probabilities, (N, L).
Answers = Callable[[Bools], Float64s]

_FOLDS: Final = 5
#: Weight of the log loss of the most probable label. The likelihood alone leaves answers overconfident on
#: average, because it is also paid for the labels that nobody is shown.
_TOP_LABEL: Final = 0.8
#: Shares of the photos about which an expert is asked.
_DOUBTFUL: Final = (0.3, 0.5, 0.7, 0.9)
#: Numbers k of `cascade.training.export.decision_graphs`.
_SHARPNESS: Final = 3
#: A weak pull to the start keeps the numbers sane where a group has few photos. Of few photos in all it is a
#: normal prior of standard deviation 1/2 (the loss is the mean over the photos): two right answers are no
#: reason to be certain.
_PULL: Final = 1e-3
#: Steps that change the loss or a number by less are not worth making.
_PRECISION: Final = 1e-7
_PRIOR: Final = 2.0


def arbitrate(
    parameters: ArbiterParameters,
    logits: StageLogits,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    deferred: Bools,
) -> Float64s:
    """Compute what `arbiter.onnx` computes, (N, L); its formula stands in
    `cascade.training.export.decision_graphs`."""
    packed = _pack(parameters)
    with torch.no_grad():
        numbers = torch.from_numpy(packed)
        log_z = _pool(numbers, *_votes(numbers, _tensors(logits), tree, experts), deferred)
    return np.exp(log_z.numpy())


def _pack(parameters: ArbiterParameters) -> Float64s:
    return np.concatenate(
        [
            [np.log(parameters.temperature)],
            np.log(parameters.expert_temperature),
            parameters.expert_weight,
            parameters.general_shift,
            parameters.sharpness,
        ]
    )


def _tensors(logits: StageLogits) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return (
        torch.from_numpy(logits.general.astype(np.float64)),
        {name: torch.from_numpy(v.astype(np.float64)) for name, v in logits.experts.items()},
    )


def _votes(
    packed: torch.Tensor,
    tensors: tuple[torch.Tensor, dict[str, torch.Tensor]],
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the general model's log probabilities and every expert's vote, (N, L) each.

    Neither depends on who is asked, so a fit computes them once for all that it must serve.
    """
    count = len(experts)
    general, expert_logits = tensors
    log_p = torch.log_softmax(general / packed[0].exp(), dim=1)
    votes = []
    for column, (name, own) in enumerate(experts.items()):
        log_q = torch.log_softmax(expert_logits[name] / packed[1 + column].exp(), dim=1)
        log_r = share_with_others(log_p, log_q, tree, own)
        votes.append(packed[1 + count + column] * log_r + packed[1 + 2 * count + column] * log_p)
    return log_p, votes


def _pool(
    packed: torch.Tensor, log_p: torch.Tensor, votes: Sequence[torch.Tensor], deferred: Bools
) -> torch.Tensor:
    """Log probabilities (N, L), differentiable in the packed parameters (4 + 3 E,)."""
    total = log_p
    for column, vote in enumerate(votes):
        if deferred[:, column].any():
            total = total + vote * torch.from_numpy(deferred[:, [column]].astype(np.float64))
    total = torch.log_softmax(total, dim=1)
    sure = total.max(1, keepdim=True).values.exp()
    k0, k1, k2 = packed[1 + 3 * len(votes) :]
    return torch.log_softmax(total * (k0 + k1 * sure + k2 * sure.square()).exp(), dim=1)


def share_with_others(
    log_p: torch.Tensor, log_q: torch.Tensor, tree: LabelTree, own: Sequence[str]
) -> torch.Tensor:
    """Return what an expert says of all labels, log r (N, L): "not mine" is shared out as the others say.

    Args:
        log_p: (N, L), of the general model.
        log_q: (N, K + 1), of the expert.
        tree: the bundle's labels.
        own: the K labels of the expert.
    """
    position = [list(own).index(label) if label in own else len(own) for label in tree.labels]
    foreign = torch.tensor([label not in own for label in tree.labels], dtype=torch.float64)
    mass = (log_p.exp() * foreign).sum(1, keepdim=True).clamp_min(1e-6)
    return log_q[:, position] + (log_p - mass.log()) * foreign


def fit_arbiter(
    logits: StageLogits, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> ArbiterParameters:
    """Fit the few numbers that must serve everything that a router may do, see `_deferral_masks`.

    What is minimised is mostly the log loss of the most probable label being right or wrong, which is the
    confidence that people see (top-label calibration, Gupta and Ramdas 2022, arXiv 2107.08353), and for the
    rest the negative log likelihood of the right label, which keeps the other probabilities honest.
    """
    count = len(experts)
    masks = _deferral_masks(logits, tree, experts)
    tensors, targets = _tensors(logits), torch.from_numpy(logits.targets)
    weights = torch.from_numpy(logits.weights)
    start = np.concatenate(
        [np.zeros(1 + count), np.full(count, 0.5), np.full(count, -0.3), np.zeros(_SHARPNESS)]
    )
    packed = torch.tensor(start, requires_grad=True)
    pull = max(_PULL, _PRIOR / len(logits.targets))
    prior = torch.tensor(start)
    optimizer = torch.optim.LBFGS(
        [packed], max_iter=200, tolerance_change=_PRECISION, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        log_p, votes = _votes(packed, tensors, tree, experts)
        for share, deferred in masks:
            loss = loss + share * _loss(_pool(packed, log_p, votes, deferred), targets, weights)
        loss = loss + pull * (packed - prior).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    values = packed.detach().numpy()
    return ArbiterParameters(
        temperature=float(np.exp(values[0])),
        expert_temperature=np.exp(values[1 : 1 + count]),
        expert_weight=values[1 + count : 1 + 2 * count].copy(),
        general_shift=values[1 + 2 * count : 1 + 3 * count].copy(),
        sharpness=values[1 + 3 * count :].copy(),
    )


def _loss(log_z: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    best, label = log_z.max(1)
    right = (label == targets).to(torch.float64)
    shown = torch.nn.functional.binary_cross_entropy(best.exp().clamp(1e-6, 1 - 1e-6), right, weights)
    likelihood = torch.nn.functional.nll_loss(log_z, targets, reduction="none") * weights
    return _TOP_LABEL * shown + (1 - _TOP_LABEL) * likelihood.mean()


def _deferral_masks(
    logits: StageLogits, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> list[tuple[float, Bools]]:
    """Return (share of the loss, who is asked (N, E)) for everything that the arbiter must cope with.

    Half: nobody asked, each expert alone, each pair, all of them, about every photo. Half: the likeliest
    expert asked about the most doubtful photos, as any router does it. An arbiter that has seen only the
    first half is overconfident about the second, for doubtful photos are not like all photos.
    """
    n, count = len(logits.targets), len(experts)
    every = []
    for size in range(count + 1):
        for chosen in combinations(range(count), size):
            deferred = np.zeros((n, count), dtype=np.bool_)
            deferred[:, list(chosen)] = True
            every.append(deferred)
    if not experts:
        return [(1.0, every[0])]
    p = softmax(logits.general)
    mass = np.stack(
        [p[:, [tree.labels.index(label) for label in own]].sum(1) for own in experts.values()], axis=1
    )
    routed = []
    for share in _DOUBTFUL:
        doubtful = np.argsort(p.max(1), kind="stable")[: round(n * share)]
        deferred = np.zeros((n, count), dtype=np.bool_)
        deferred[doubtful, mass[doubtful].argmax(1)] = True
        routed.append(deferred)
    return [(0.5 / len(every), deferred) for deferred in every] + [
        (0.5 / len(routed), deferred) for deferred in routed
    ]


def cross_fit(
    logits: StageLogits, tree: LabelTree, experts: Mapping[str, Sequence[str]], seed: int
) -> tuple[list[Fold], Answers]:
    """Return folds, and what gives probabilities (N, L) for who was asked (N, E), cross-fitted on them."""
    # Not stratified: a rare label may have fewer photos than there are folds.
    parts = KFold(min(_FOLDS, len(logits.targets)), shuffle=True, random_state=seed)
    folds = list(parts.split(logits.general))
    arbiters = [fit_arbiter(logits.rows(train), tree, experts) for train, _ in folds]

    def answers(deferred: Bools) -> Float64s:
        out = np.zeros((len(logits.targets), len(tree.labels)))
        for arbiter, (_, fold) in zip(arbiters, folds, strict=True):
            out[fold] = arbitrate(arbiter, logits.rows(fold), tree, experts, deferred[fold])
        return out

    return folds, answers
