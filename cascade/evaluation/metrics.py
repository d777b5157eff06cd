"""Computes how good answers are, with intervals.

Pure functions of arrays; nothing here knows photos, bundles or files. Shapes: N photos, L labels. Whether a
confidence means what it says is measured in `cascade.evaluation.calibration_metrics`. Every interval is at 95
% unless another `level` is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from cascade.arrays import Bools, Float64s, Floats, Ints
from cascade.errors import UsageError

__all__ = [
    "Interval",
    "LabelScores",
    "PairedDifference",
    "brier_score",
    "confusion_matrix",
    "f1_interval",
    "label_scores",
    "negative_log_likelihood",
    "paired_difference",
    "wilson_interval",
]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more often one classifier is right than another, on the same photos.

    Attributes:
        difference: accuracy of the second minus that of the first, -1..1.
        interval: of the difference, by a paired bootstrap.
        helped: photos that only the second gets right.
        harmed: photos that only the first gets right.
        p_value: of McNemar's exact test that helping and harming are equally likely.
    """

    difference: float
    interval: Interval
    helped: int
    harmed: int
    p_value: float


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How well each label is recognised.

    Attributes:
        support: (L,), photos that have the label.
        predicted: (L,), photos that were given it.
        correct: (L,), photos of which both is true.
        precision: (L,), correct / predicted; nan where nothing was predicted.
        recall: (L,), correct / support; nan where there is no photo.
        f1: (L,), harmonic mean of both; nan where neither is defined.
    """

    support: Ints
    predicted: Ints
    correct: Ints
    precision: Floats
    recall: Floats
    f1: Floats


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion (Wilson 1927); the whole range 0..1 when ``n`` is 0.

    Raises:
        UsageError: when there are more successes than trials, or ``level`` is not between 0 and 1.
    """
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes out of {n} are impossible")
    if not 0.0 < level < 1.0:
        raise UsageError(f"level is {level}; it must be between 0 and 1")
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    scale = 1 + z * z / n
    # Rounding must not push an end past the observed share when that is exactly 0 or 1.
    return Interval(
        0.0 if successes == 0 else max((centre - half) / scale, 0.0),
        1.0 if successes == n else min((centre + half) / scale, 1.0),
    )


def f1_interval(correct: int, predicted: int, support: int, level: float = 0.95) -> Interval:
    """Return an interval of F1, the "Wilson indirect" method of Lam, Gopal and Qian 2023, arXiv 2309.14621.

    F1 / (2 - F1) = correct / (predicted + support - correct) is a proportion; its Wilson interval is mapped
    back to F1.
    """
    low, high = wilson_interval(correct, predicted + support - correct, level)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high))


def negative_log_likelihood(probabilities: Floats, truth: Ints) -> float:
    """Return the mean of -log(probability of the true label), in nats.

    Probabilities are kept above 2.2e-16 (double precision's epsilon, as scikit-learn's ``log_loss`` does),
    so that one impossible answer does not make the mean infinite.

    Args:
        probabilities: (N, L).
        truth: (N,), column of the true label.
    """
    wide = _checked(probabilities, truth)
    given = wide[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(given, np.finfo(np.float64).eps)).mean())


def brier_score(probabilities: Floats, truth: Ints) -> float:
    """Return the mean squared distance to the truth, summed over labels, 0..2 (Brier 1950).

    Args:
        probabilities: (N, L).
        truth: (N,), column of the true label.
    """
    wide = _checked(probabilities, truth)
    given = wide[np.arange(len(truth)), truth]
    return float(((wide**2).sum(axis=1) - 2 * given + 1).mean())


def paired_difference(
    before: Bools, after: Bools, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare two classifiers on the same photos.

    A resample of photos only matters through how many of them were helped and harmed, so the bootstrap
    draws these counts directly.

    Args:
        before: (N,), whether the first is right.
        after: (N,), whether the second is right.
        level: of the interval.
        draws: resamples.
        seed: of the resampling; the same seed gives the same interval.
    """
    before, after = np.asarray(before, dtype=np.bool_), np.asarray(after, dtype=np.bool_)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise UsageError(f"cannot compare {before.shape} with {after.shape} photos")
    n = len(before)
    helped, harmed = int((after & ~before).sum()), int((before & ~after).sum())
    shares = np.array([helped, harmed, n - helped - harmed]) / n
    counts = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return PairedDifference(
        difference=(helped - harmed) / n,
        interval=Interval(float(low), float(high)),
        helped=helped,
        harmed=harmed,
        p_value=_sign_test(helped, harmed),
    )


def confusion_matrix(truth: Ints, predicted: Ints, labels: int) -> Ints:
    """Return counts (L, L): row is the true label, column the predicted one."""
    flat = np.asarray(truth, dtype=np.int64) * labels + np.asarray(predicted, dtype=np.int64)
    return np.bincount(flat, minlength=labels * labels).reshape(labels, labels).astype(np.int64)


def label_scores(confusion: Ints) -> LabelScores:
    """Return precision, recall and F1 of every label of a confusion matrix (L, L)."""
    correct, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return LabelScores(
            support=support,
            predicted=predicted,
            correct=correct,
            precision=correct / predicted,
            recall=correct / support,
            f1=2 * correct / (support + predicted),
        )


def _sign_test(helped: int, harmed: int) -> float:
    """Two-sided binomial test at 1/2, in logarithms because the terms underflow."""
    n = helped + harmed
    if n == 0:
        return 1.0
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(min(helped, harmed) + 1)
    log_terms = log_factorial[n] - log_factorial[k] - log_factorial[n - k] - n * np.log(2.0)
    return min(1.0, 2 * float(np.exp(log_terms).sum()))


def _checked(probabilities: Floats, truth: Ints) -> Float64s:
    wide = np.asarray(probabilities, dtype=np.float64)
    if wide.ndim != 2 or len(wide) != len(truth) or not len(truth):
        raise UsageError(f"probabilities {wide.shape} and {len(truth)} true labels do not match")
    return wide
