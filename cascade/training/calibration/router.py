"""Fits the router; its formula stands in `cascade.training.export.decision_graphs`.

One number per expert. Logistic regressions on eight features of the general model's answer, which were
here before, asked about photos that the experts could not mend: cross-fitted on the calibration photos they
lost to plain confidence at every cost, and this does not. The gain is one of likelihood: how often an expert
turns a wrong answer into a right one is a matter of a dozen photos, and how much more confident it makes the
answer says little about whether it should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cascade.arrays import Float64s, softmax
from cascade.labels import LabelTree
from cascade.training.calibration.arbiter import Answers
from cascade.training.calibration.stage_logits import Fold, StageLogits
from cascade.training.export.decision_graphs import RouterParameters

__all__ = ["expected_gain", "fit_router"]


def fit_router(
    logits: StageLogits,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    temperature: float,
    folds: Sequence[Fold],
    answers: Answers,
) -> tuple[RouterParameters, Float64s]:
    """Fit the router on cross-fitted arbiter answers.

    Args:
        logits: of N photos.
        tree: the bundle's labels.
        experts: expert -> its labels.
        temperature: of the general model.
        folds: on which the gain is cross-fitted.
        answers: of the arbiter, cross-fitted on the same folds.

    Returns:
        The router, and the gain that it expects, (N, E), cross-fitted.
    """
    count, n = len(experts), len(logits.targets)
    nobody = np.zeros((n, count), dtype=np.bool_)
    before = _log_likelihood(answers(nobody), logits)
    gained = np.zeros((n, count))
    for column in range(count):
        only = nobody.copy()
        only[:, column] = True
        gained[:, column] = _log_likelihood(answers(only), logits) - before
    chances, weights = _mendable(logits, temperature, tree, experts), logits.weights[:, None]
    cross_gain = np.zeros((n, count))
    for train, held_out in folds:
        cross_gain[held_out] = chances[held_out] * _worth(chances[train], gained[train], weights[train])
    return RouterParameters(temperature, _worth(chances, gained, weights)), cross_gain


def _log_likelihood(probabilities: Float64s, logits: StageLogits) -> Float64s:
    right = probabilities[np.arange(len(probabilities)), logits.targets]
    return np.asarray(np.log(np.maximum(right, 1e-6)))


def _mendable(
    logits: StageLogits, temperature: float, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> Float64s:
    """Return the chance (N, E) that the general model is wrong about a photo that is one of the expert's."""
    p = softmax(logits.general / temperature)
    mine = np.array([[label in own for own in experts.values()] for label in tree.labels])
    return np.asarray((1 - p.max(1, keepdims=True)) * (p @ mine))


def _worth(chances: Float64s, gained: Float64s, weights: Float64s) -> Float64s:
    """Return a (E,): weighted least squares of what was gained on the chances, clipped to 0..1.

    An expert with a slope below 0 does harm and is never asked. A slope above 1 would promise a gain above
    1, and then no price would keep everybody from being asked.
    """
    slope = (weights * chances * gained).sum(0) / np.maximum((weights * np.square(chances)).sum(0), 1e-12)
    return np.asarray(slope.clip(0.0, 1.0))


def expected_gain(
    router: RouterParameters, logits: StageLogits, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> Float64s:
    """Compute what `router.onnx` computes, (N, E)."""
    return _mendable(logits, router.temperature, tree, experts) * router.worth
