"""Reliability: against scikit-learn and relplot where they have the function, else against properties."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.errors import UsageError
from cascade.evaluation import calibration_metrics as reliability

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")


def graded(seed: int = 0, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (n,), somewhat too high, and whether the answer was right."""
    random = np.random.default_rng(seed)
    odds = np.exp(random.normal(0, 2, (n, 7)))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    truth = np.array([random.choice(7, p=row) for row in probabilities])
    sharper = probabilities**1.5
    confidence = (sharper / sharper.sum(axis=1, keepdims=True)).max(axis=1)
    return confidence, probabilities.argmax(axis=1) == truth


pairs = st.integers(1, 80).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(0, 1)), hnp.arrays(np.bool_, n, elements=st.booleans())
    )
)


class TestCalibration:
    def test_bins_are_those_of_scikit_learns_quantile_curve(self) -> None:
        calibration = pytest.importorskip("sklearn.calibration")
        confidence, right = graded(n=600)
        accuracy, mean = calibration.calibration_curve(right, confidence, n_bins=15, strategy="quantile")
        bins = reliability.reliability_bins(confidence, right)
        np.testing.assert_allclose(bins.confidence, mean)
        np.testing.assert_allclose(bins.accuracy, accuracy)
        assert bins.count.tolist() == [40] * 15
        expected = np.abs(mean - accuracy).mean()
        assert reliability.expected_calibration_error(confidence, right) == pytest.approx(expected)

    @given(pairs)
    def test_bins_lose_no_photo(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        confidence, right = pair
        bins = reliability.reliability_bins(confidence, right)
        assert bins.count.sum() == len(confidence)
        assert bins.count.max() - bins.count.min() <= 1
        assert (bins.accuracy * bins.count).sum() == pytest.approx(right.sum())
        assert np.all(np.diff(bins.confidence) >= -1e-12)

    @given(pairs)
    def test_error_lies_between_the_overall_gap_and_one(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        confidence, right = pair
        gap = abs(confidence.mean() - right.mean())
        assert gap - 1e-9 <= reliability.expected_calibration_error(confidence, right) <= 1

    def test_certainty_that_is_right_has_no_error_and_one_that_is_wrong_has_all(self) -> None:
        ones = np.ones(50)
        for error in (reliability.expected_calibration_error, reliability.smooth_calibration_error):
            assert error(ones, ones.astype(bool)) == pytest.approx(0, abs=2e-3)
        assert reliability.expected_calibration_error(ones, np.zeros(50, dtype=bool)) == 1

    def test_floor_is_what_a_calibrated_model_shows(self) -> None:
        random = np.random.default_rng(1)
        confidence = random.beta(4, 2, 300)
        shown = [
            reliability.expected_calibration_error(confidence, random.random(300) < confidence)
            for _ in range(300)
        ]
        assert reliability.expected_calibration_error_floor(confidence) == pytest.approx(
            np.mean(shown), rel=0.1
        )

    def test_floor_falls_with_more_photos(self) -> None:
        confidence = np.random.default_rng(1).beta(4, 2, 4000)
        few, many = (reliability.expected_calibration_error_floor(confidence[:n]) for n in (200, 4000))
        assert many < few / 3

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("n", [100, 2000])
    def test_smooth_error_is_relplots(self, seed: int, n: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas and seaborn, which relplot imports
            relplot = pytest.importorskip("relplot", reason="relplot is the reference")
        confidence, right = graded(seed, n)
        expected = relplot.smECE(confidence, right.astype(float))
        assert reliability.smooth_calibration_error(confidence, right) == pytest.approx(expected, abs=1.5e-3)

    def test_smooth_error_is_relplots_where_calibration_is_good(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            relplot = pytest.importorskip("relplot", reason="relplot is the reference")
        random = np.random.default_rng(6)
        confidence = random.beta(5, 2, 3000)
        right = random.random(3000) < confidence
        expected = relplot.smECE(confidence, right.astype(float))
        assert expected < 0.02
        assert reliability.smooth_calibration_error(confidence, right) == pytest.approx(expected, abs=1e-3)

    def test_confidence_and_right_must_match(self) -> None:
        with pytest.raises(UsageError, match="do not match"):
            reliability.reliability_bins(np.ones(3), np.ones(2, dtype=bool))


class TestRiskCoverage:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_augrc_is_the_papers_closed_form(self, seed: int) -> None:
        """Traub et al. 2024: (1 - AUROC_f) acc (1 - acc) + (1 - acc)^2 / 2."""
        confidence, right = graded(seed)
        confidence = np.round(confidence, 2)  # ties
        auroc, accuracy = sklearn_metrics.roc_auc_score(right, confidence), right.mean()
        expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
        assert reliability.augrc(confidence, right) == pytest.approx(expected, rel=1e-12)

    def test_augrc_by_hand(self) -> None:
        """Three photos, the least confident wrong: generalized risk 0, 0, 0, 1/3 at coverage 0 .. 1."""
        assert reliability.augrc(np.array([0.9, 0.8, 0.7]), np.array([True, True, False])) == pytest.approx(
            1 / 18
        )

    @given(pairs, st.randoms())
    def test_order_of_photos_does_not_matter(self, pair: tuple[np.ndarray, np.ndarray], random) -> None:
        confidence, right = pair
        order = list(range(len(right)))
        random.shuffle(order)
        one, other = (
            reliability.risk_coverage(confidence, right),
            reliability.risk_coverage(confidence[order], right[order]),
        )
        np.testing.assert_array_equal(one.generalized_risk, other.generalized_risk)
        np.testing.assert_array_equal(one.threshold, other.threshold)

    @given(pairs)
    def test_curve_runs_from_nobody_to_everybody(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        confidence, right = pair
        curve = reliability.risk_coverage(confidence, right)
        assert curve.coverage[0] == 0
        assert curve.coverage[-1] == 1
        assert curve.risk[-1] == pytest.approx(1 - right.mean())
        assert np.all(np.diff(curve.generalized_risk) >= 0)
        assert np.all(np.diff(curve.threshold) < 0)
        for threshold, coverage in zip(curve.threshold, curve.coverage, strict=True):
            assert coverage == np.mean(confidence >= threshold)

    @given(pairs)
    def test_augrc_is_within_its_bounds(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        confidence, right = pair
        error = 1 - right.mean()
        assert error**2 / 2 - 1e-12 <= reliability.augrc(confidence, right) <= error - error**2 / 2 + 1e-12
