"""Fitting the router. In: what everybody said of labelled photos. Out: the numbers of `router.onnx`, and the
gain that it expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.labels import LabelTree
from cascade.training.calibration_data import FloatArray, Fold, Outputs, softmax
from cascade.training.graphs import RouterParameters, router_features
from cascade.training.rules import Answers

__all__ = ["expected_gain", "fit_router"]


def fit_router(
    outputs: Outputs,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    temperature: float,
    folds: Sequence[Fold],
    answers: Answers,
) -> tuple[RouterParameters, FloatArray]:
    """Fit the router on cross-fitted arbiter answers.

    Args:
        outputs: of N photos.
        tree: the bundle's labels.
        experts: expert -> its labels.
        temperature: of the general model.
        folds: on which the gain is cross-fitted.
        answers: of the arbiter, cross-fitted on the same folds.

    Returns:
        The router, and the gain that it expects, (N, E), cross-fitted.
    """
    count, n = len(experts), len(outputs.targets)
    nobody = np.zeros((n, count), dtype=np.bool_)
    # Of calibrated answers, the mean of the largest probability is the probability to be right, and it
    # varies far less from photo to photo than the fact of being right, of which few photos change.
    right_before = answers(nobody).max(1)
    right_after = np.zeros((n, count))
    for column in range(count):
        only = nobody.copy()
        only[:, column] = True
        right_after[:, column] = answers(only).max(1)

    calm = softmax(outputs.general / temperature)
    x = np.stack([router_features(calm, tree.labels, own) for own in experts.values()], axis=1)  # (N, E, F)
    sides = {"before": np.repeat(right_before[:, None], count, axis=1), "after": right_after}
    cross_gain = np.zeros((n, count))
    for train, held_out in folds:
        after, before = (_fit_side(x[train], sides[side][train]) for side in ("after", "before"))
        cross_gain[held_out] = _chance(x[held_out], after) - _chance(x[held_out], before)
    before, after = (_fit_side(x, sides[side]) for side in ("before", "after"))
    return RouterParameters(temperature, before, after), cross_gain


def _fit_side(x: FloatArray, right: FloatArray) -> FloatArray:
    """Return weights and intercept (E, F + 1) for features (N, E, F) and targets (N, E) in 0..1.

    Experts share the weights and have intercepts of their own: the features mean the same for each of them,
    and what is fitted to some hundred doubtful photos of one expert alone routes worse than plain confidence.
    """
    n, count, width = x.shape
    which = np.broadcast_to(np.eye(count), (n, count, count))
    w = _logistic(np.concatenate([x, which], axis=2).reshape(n * count, -1), right.reshape(-1))
    return np.column_stack([np.tile(w[:width], (count, 1)), w[-1] + w[width:-1]])


def _chance(x: FloatArray, w: FloatArray) -> FloatArray:
    """Return probabilities (N, E) for features (N, E, F) and weights (E, F + 1)."""
    return _sigmoid((x * w[:, :-1]).sum(2) + w[:, -1])


def expected_gain(
    router: RouterParameters, outputs: Outputs, tree: LabelTree, experts: Mapping[str, Sequence[str]]
) -> FloatArray:
    """Compute what `router.onnx` computes, (N, E)."""
    calm = softmax(outputs.general / router.temperature)
    x = np.stack([router_features(calm, tree.labels, own) for own in experts.values()], axis=1)
    return _chance(x, router.after) - _chance(x, router.before)


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
