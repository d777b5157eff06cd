"""Fits the head of an image stage anew on known photos and corrections, starting from the head that is there.

What is minimised over the change dW of the weights (features are standardised, so that one pull suits all):

    mean weight * cross-entropy of (W + dW)  +  pull / 2 * |dW|^2       (the bias moves freely)

A pull towards the start (L2-SP, Li, Grandvalet and Davoine 2018, arXiv 1802.01483) and known photos beside
the new ones keep a model from forgetting. Of the known photos the fit is told what the old head said of them
(dark experience replay, Buzzega et al. 2020, arXiv 2004.07211), not their labels: with labels it forgot twice
as much and learned less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import minimize

from cascade.arrays import Float64s, Floats, Ints, softmax
from cascade.training.learning.heads import Head

__all__ = ["PULLS", "Lesson", "fit_head", "widened"]

#: What is tried; the larger, the closer the head stays to the old one.
PULLS: Final = (3e-1, 1e-1, 3e-2, 1e-2)
_ITERATIONS: Final = 60
_TINY: Final = 1e-30


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a head is fitted on.

    Attributes:
        embedding: (N, D).
        targets: (N, K), the probability of each label: 1 for the right one, or what an old head said.
        weights: (N,), what each photo counts.
    """

    embedding: Floats
    targets: Floats
    weights: Float64s

    def rows(self, index: Ints) -> Lesson:
        """Return a subset of the photos."""
        return Lesson(self.embedding[index], self.targets[index], self.weights[index])


def fit_head(start: Head, lesson: Lesson, pull: float, begin: Head | None = None) -> Head:
    """Return the head that the lesson makes of the start.

    Args:
        start: K labels.
        lesson: what is fitted.
        pull: see the module.
        begin: a head that is near the result, which saves time; None begins at the start.
    """
    # Single precision: half the time, and far finer than what photos say.
    x = np.asarray(lesson.embedding, dtype=np.float32)
    middle, spread = x.mean(axis=0), float(x.std(axis=0).mean()) or 1.0
    x = (x - middle) / np.float32(spread)
    targets = lesson.targets.astype(np.float32)
    share = (lesson.weights / lesson.weights.sum()).astype(np.float32)
    known = start.logits(lesson.embedding)
    shape = (len(start.bias), x.shape[1] + 1)

    def loss(flat: Float64s) -> tuple[float, Float64s]:
        change = flat.reshape(shape).astype(np.float32)
        step = change[:, :-1]
        probabilities = softmax(known + x @ step.T + change[:, -1])
        likelihood = (targets * np.log(np.maximum(probabilities, _TINY))).sum(axis=1)
        error = (probabilities - targets) * share[:, None]
        slope = np.concatenate([error.T @ x + pull * step, error.sum(axis=0)[:, None]], axis=1)
        value = float(-(share * likelihood).sum() + pull / 2 * (step**2).sum())
        return value, slope.ravel().astype(np.float64)

    nearby = _change(start, begin or start, middle, spread).ravel()
    found = minimize(loss, nearby, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    change = found.x.reshape(shape)
    step = change[:, :-1] / spread
    return Head(start.weights + step, start.bias + change[:, -1] - step @ middle)


def _change(start: Head, head: Head, middle: Floats, spread: float) -> Float64s:
    """Return the change that makes a head of the start, as `fit_head` counts it, (K, D + 1)."""
    step = head.weights - start.weights
    bias = head.bias - start.bias + step @ middle
    return np.concatenate([step * spread, bias[:, None]], axis=1)


def widened(start: Head, count: int) -> Head:
    """Return a head with more labels; the new ones begin as unlikely as the least likely old one.

    Args:
        start: K labels.
        count: labels of the result, at least K.
    """
    extra = count - len(start.bias)
    if not extra:
        return start
    weights = np.concatenate([start.weights, np.zeros((extra, start.weights.shape[1]))])
    return Head(weights, np.concatenate([start.bias, np.full(extra, float(start.bias.min()))]))
