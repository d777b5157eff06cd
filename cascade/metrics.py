"""How good probabilities are. In: probabilities or confidences, and what was true. Out: figures, intervals.

Pure functions of arrays; nothing here knows photos, bundles or files. Shapes: N photos, L labels, B bins.
Every interval is at 95 % unless another `level` is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.errors import UsageError

__all__ = [
    "BINS",
    "Interval",
    "LabelScores",
    "PairedDifference",
    "ReliabilityBins",
    "RiskCoverage",
    "augrc",
    "brier_score",
    "confusion_matrix",
    "expected_calibration_error",
    "expected_calibration_error_floor",
    "f1_interval",
    "label_scores",
    "negative_log_likelihood",
    "paired_difference",
    "reliability_bins",
    "risk_coverage",
    "smooth_calibration_error",
    "wilson_interval",
]

#: Equal-mass bins of the calibration error, wherever it is quoted.
BINS: Final = 15

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more often one way is right than another, on the same photos.

    Attributes:
        difference: accuracy of the second way minus that of the first, -1..1.
        interval: of the difference, by a paired bootstrap.
        helped: photos that only the second way gets right.
        harmed: photos that only the first way gets right.
        p_value: of McNemar's exact test that helping and harming are equally likely.
    """

    difference: float
    interval: Interval
    helped: int
    harmed: int
    p_value: float


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """Photos sorted by confidence and cut into bins of equal size.

    Attributes:
        count: (B,), photos in each bin.
        confidence: (B,), their mean confidence, ascending.
        accuracy: (B,), share of them that is right.
    """

    count: Ints
    confidence: Floats
    accuracy: Floats


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What remains wrong when only the most confident photos are answered.

    One point per distinct confidence, from nobody (coverage 0) to everybody (coverage 1).

    Attributes:
        threshold: (M,), lowest confidence that is answered; infinite at coverage 0.
        coverage: (M,), share of the photos that is answered.
        risk: (M,), share of the answered photos that is wrong; 0 at coverage 0.
        generalized_risk: (M,), share of all photos that is answered and wrong.
    """

    threshold: Floats
    coverage: Floats
    risk: Floats
    generalized_risk: Floats


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


def reliability_bins(confidence: Floats, right: Bools, bins: int = BINS) -> ReliabilityBins:
    """Sort photos by confidence and cut them into ``bins`` of equal size (fewer, if there are fewer photos).

    Args:
        confidence: (N,), of the answer given.
        right: (N,), whether it was right.
        bins: how many.
    """
    confidence, right = _paired(confidence, right)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return ReliabilityBins(
        count=np.array([len(part) for part in parts]),
        confidence=np.array([confidence[part].mean() for part in parts]),
        accuracy=np.array([right[part].mean() for part in parts]),
    )


def expected_calibration_error(confidence: Floats, right: Bools, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over bins of equal mass, 0..1.

    Naeini, Cooper and Hauskrecht 2015, with equal mass instead of equal width (Nixon et al. 2019,
    arXiv 1904.01685), because nearly all confidences of a good model lie in the last equal-width bin.
    """
    cut = reliability_bins(confidence, right, bins)
    return float((np.abs(cut.confidence - cut.accuracy) * cut.count).sum() / cut.count.sum())


def expected_calibration_error_floor(
    confidence: Floats, bins: int = BINS, *, draws: int = 200, seed: int = 0
) -> float:
    """Return the calibration error that a perfectly calibrated model shows by chance on so few photos.

    The binned error is biased upwards, the more so the fewer photos there are; a figure near this one
    means that no miscalibration can be seen (consistency resampling, Bröcker and Smith 2007).
    """
    confidence = np.sort(_paired(confidence, np.ones(len(confidence), dtype=np.bool_))[0])
    random = np.random.default_rng(seed)
    parts = np.array_split(np.arange(len(confidence)), min(bins, len(confidence)))
    starts = [int(part[0]) for part in parts]
    total = 0.0
    for _ in range(draws):
        gap = confidence - (random.random(len(confidence)) < confidence)
        total += float(np.abs(np.add.reduceat(gap, starts)).sum()) / len(confidence)
    return total / draws


def smooth_calibration_error(confidence: Floats, right: Bools) -> float:
    """Return smECE, a calibration error without bins (Błasiok and Nakkiran 2023, arXiv 2309.12236).

    The residuals (right - confidence) are smoothed with a Gaussian that is reflected at 0 and 1; the result
    is the width at which the width equals the mean absolute smoothed residual.
    """
    confidence, right = _paired(confidence, right)
    cells = 1024  # one cell is a tenth of the widths that matter, so its rounding is not seen
    place = np.minimum((np.clip(confidence, 0, 1) * cells).astype(np.int64), cells - 1)
    mass = np.bincount(place, weights=right - confidence, minlength=cells) / len(confidence)
    # A reflected Gaussian is diagonal in the cosine basis: frequency j is damped by exp(-(pi j width)^2 / 2).
    # Both cosine transforms are taken by an FFT of twice the length.
    frequency = np.arange(cells)
    phase = np.exp(-0.5j * np.pi * frequency / cells)
    amplitude = (np.fft.fft(mass, 2 * cells)[:cells] * phase).real
    amplitude[1:] *= 2

    def error(width: float) -> float:
        damped = amplitude * np.exp(-((np.pi * frequency * width) ** 2) / 2)
        smoothed = np.fft.ifft(damped / phase, 2 * cells)[:cells].real * 2 * cells
        return float(np.abs(smoothed).mean())

    low, high = 0.0, 1.0
    for _ in range(20):  # the error falls and the width rises: one crossing
        width = (low + high) / 2
        low, high = (width, high) if error(width) > width else (low, width)
    return error((low + high) / 2)


def risk_coverage(confidence: Floats, right: Bools) -> RiskCoverage:
    """Return what remains wrong when only the most confident photos are answered.

    Photos of equal confidence are answered together, so the order of the photos does not matter.

    Args:
        confidence: (N,), of the answer given.
        right: (N,), whether it was right.
    """
    confidence, right = _paired(confidence, right)
    values, group = np.unique(-confidence, return_inverse=True)
    answered = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(values)))])
    wrong = np.concatenate([[0.0], np.cumsum(np.bincount(group, weights=~right, minlength=len(values)))])
    return RiskCoverage(
        threshold=np.concatenate([[np.inf], -values]),
        coverage=answered / len(confidence),
        risk=wrong / np.maximum(answered, 1),
        generalized_risk=wrong / len(confidence),
    )


def augrc(confidence: Floats, right: Bools) -> float:
    """Return the area under the generalized risk-coverage curve, 0..0.5, lower is better.

    The mean risk of an undetected failure over all coverages: Traub et al. 2024, "Overcoming Common Flaws
    in the Evaluation of Selective Classification Systems", arXiv 2407.01032.
    """
    curve = risk_coverage(confidence, right)
    return float(np.trapezoid(curve.generalized_risk, curve.coverage))


def paired_difference(
    before: Bools, after: Bools, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare two ways on the same photos.

    A resample of photos only matters through how many of them were helped and harmed, so the bootstrap
    draws these counts directly.

    Args:
        before: (N,), whether the first way is right.
        after: (N,), whether the second way is right.
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


def confusion_matrix(truth: Ints, predicted: Ints, labels: int) -> npt.NDArray[np.int64]:
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


def _checked(probabilities: Floats, truth: Ints) -> npt.NDArray[np.float64]:
    wide = np.asarray(probabilities, dtype=np.float64)
    if wide.ndim != 2 or len(wide) != len(truth) or not len(truth):
        raise UsageError(f"probabilities {wide.shape} and {len(truth)} true labels do not match")
    return wide


def _paired(confidence: Floats, right: Bools) -> tuple[npt.NDArray[np.float64], Bools]:
    wide, flags = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if wide.shape != flags.shape or wide.ndim != 1 or not len(wide):
        raise UsageError(f"confidence {wide.shape} and right {flags.shape} do not match")
    return wide, flags
