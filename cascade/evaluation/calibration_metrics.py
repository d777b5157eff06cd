"""Measures whether a confidence means what it says.

Pure functions of arrays. Shapes: N photos, B bins, M distinct confidences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cascade.arrays import Bools, Float64s, Floats, Ints
from cascade.errors import UsageError

__all__ = [
    "BINS",
    "ReliabilityBins",
    "RiskCoverage",
    "augrc",
    "expected_calibration_error",
    "expected_calibration_error_floor",
    "reliability_bins",
    "risk_coverage",
    "smooth_calibration_error",
]

#: Equal-mass bins of the calibration error, wherever it is quoted.
BINS: Final = 15


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


def _paired(confidence: Floats, right: Bools) -> tuple[Float64s, Bools]:
    wide, flags = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if wide.shape != flags.shape or wide.ndim != 1 or not len(wide):
        raise UsageError(f"confidence {wide.shape} and right {flags.shape} do not match")
    return wide, flags
