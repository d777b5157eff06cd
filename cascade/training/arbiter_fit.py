"""Fitting the arbiter. In: what everybody said of labelled photos. Out: the numbers of `arbiter.onnx`, and
the probabilities that it gives, also cross-fitted. Its formula stands in `cascade.training.graphs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import torch
from sklearn.model_selection import KFold

from cascade.labels import LabelTree
from cascade.training.calibration_data import BoolArray, FloatArray, Fold, Outputs
from cascade.training.graphs import ArbiterParameters

__all__ = ["arbitrate", "cross_fit", "fit_arbiter", "share_with_others"]

_FOLDS: Final = 5


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
        log_r = share_with_others(log_p, log_q, tree, own)
        vote = packed[1 + count + column] * log_r + packed[1 + 2 * count + column] * log_p
        total = total + vote * torch.from_numpy(asked[:, [column]].astype(np.float64))
    return torch.log_softmax(total, dim=1)


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


def fit_arbiter(outputs: Outputs, tree: LabelTree, experts: Mapping[str, Sequence[str]]) -> ArbiterParameters:
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


def cross_fit(
    outputs: Outputs, tree: LabelTree, experts: Mapping[str, Sequence[str]], seed: int
) -> tuple[list[Fold], Callable[[BoolArray], FloatArray]]:
    """Return folds, and what gives probabilities (N, L) for who was asked (N, E), cross-fitted on them."""
    # Not stratified: a rare label may have fewer photos than there are folds.
    folds = list(KFold(_FOLDS, shuffle=True, random_state=seed).split(outputs.general))
    arbiters = [fit_arbiter(outputs.rows(train), tree, experts) for train, _ in folds]

    def answers(asked: BoolArray) -> FloatArray:
        out = np.zeros((len(outputs.targets), len(tree.labels)))
        for arbiter, (_, fold) in zip(arbiters, folds, strict=True):
            out[fold] = arbitrate(arbiter, outputs.rows(fold), tree, experts, asked[fold])
        return out

    return folds, answers
