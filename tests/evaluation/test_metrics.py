"""Metrics: against scikit-learn and scipy where they have the function, else against properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import UsageError
from cascade.evaluation import metrics
from cascade.evaluation.metrics import Interval

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")


def sample(n: int = 600, labels: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, labels), somewhat overconfident, and true labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, labels))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(labels, p=row) for row in probabilities])
    sharper = probabilities**1.5
    return sharper / sharper.sum(axis=1, keepdims=True), truth


class TestLikelihoodAndBrier:
    def test_nll_is_scikit_learns_log_loss(self) -> None:
        probabilities, truth = sample()
        expected = sklearn_metrics.log_loss(truth, probabilities, labels=range(7))
        assert metrics.negative_log_likelihood(probabilities, truth) == pytest.approx(expected, rel=1e-12)

    def test_nll_of_an_impossible_truth_is_finite_and_scikit_learns(self) -> None:
        probabilities, truth = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0])
        expected = sklearn_metrics.log_loss(truth, probabilities)
        assert metrics.negative_log_likelihood(probabilities, truth) == pytest.approx(expected)
        assert expected > 18

    def test_brier_is_scikit_learns(self) -> None:
        probabilities, truth = sample()
        expected = sklearn_metrics.brier_score_loss(
            truth, probabilities, labels=range(7), scale_by_half=False
        )
        assert metrics.brier_score(probabilities, truth) == pytest.approx(expected, rel=1e-12)

    def test_brier_reaches_both_ends(self) -> None:
        certain = np.array([[1.0, 0.0], [0.0, 1.0]])
        assert metrics.brier_score(certain, np.array([0, 1])) == 0
        assert metrics.brier_score(certain, np.array([1, 0])) == 2

    @pytest.mark.parametrize("score", [metrics.brier_score, metrics.negative_log_likelihood])
    def test_the_truth_scores_better_than_any_other_forecast(self, score) -> None:
        """Both are proper: in expectation nothing beats the probabilities that the labels were drawn from."""
        random = np.random.default_rng(3)
        true = np.array([0.6, 0.3, 0.1])
        truth = random.choice(3, size=20_000, p=true)
        best = score(np.tile(true, (20_000, 1)), truth)
        for other in ([0.8, 0.1, 0.1], [0.34, 0.33, 0.33], [0.5, 0.4, 0.1]):
            assert score(np.tile(other, (20_000, 1)), truth) > best

    def test_shapes_that_do_not_fit_are_refused(self) -> None:
        probabilities, truth = sample(10)
        with pytest.raises(UsageError, match="do not match"):
            metrics.brier_score(probabilities, truth[:-1])
        with pytest.raises(UsageError, match="do not match"):
            metrics.negative_log_likelihood(probabilities[:0], truth[:0])


class TestIntervals:
    @pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (10, 10), (755, 1000), (2, 3)])
    def test_wilson_is_scipys(self, k: int, n: int) -> None:
        stats = pytest.importorskip("scipy.stats")
        expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert metrics.wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)

    @given(st.integers(0, 500), st.integers(0, 500), st.floats(0.5, 0.99))
    def test_wilson_holds_the_share_and_stays_within_bounds(self, a: int, b: int, level: float) -> None:
        k, n = a, a + b
        low, high = metrics.wilson_interval(k, n, level)
        assert 0 <= low <= high <= 1
        assert n == 0 or low <= k / n <= high

    @given(st.integers(1, 50), st.integers(0, 50))
    def test_more_photos_narrow_it(self, a: int, b: int) -> None:
        few, many = metrics.wilson_interval(a, a + b), metrics.wilson_interval(10 * a, 10 * (a + b))
        assert many.high - many.low < few.high - few.low

    def test_no_photos_mean_nothing_is_known(self) -> None:
        assert metrics.wilson_interval(0, 0) == Interval(0, 1)

    def test_impossible_counts_and_levels_are_refused(self) -> None:
        with pytest.raises(UsageError, match="impossible"):
            metrics.wilson_interval(3, 2)
        with pytest.raises(UsageError, match="level"):
            metrics.wilson_interval(1, 2, 1.0)

    @given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
    def test_f1_interval_holds_f1(self, correct: int, false_positive: int, missed: int) -> None:
        predicted, support = correct + false_positive, correct + missed
        low, high = metrics.f1_interval(correct, predicted, support)
        assert 0 <= low <= high <= 1
        if predicted + support:
            f1 = 2 * correct / (predicted + support)
            assert low - 1e-12 <= f1 <= high + 1e-12

    def test_f1_interval_covers_as_often_as_it_says(self) -> None:
        random = np.random.default_rng(5)
        shares = np.array([0.35, 0.1, 0.15, 0.4])  # both, only predicted, only true, neither
        f1 = 2 * 0.35 / (2 * 0.35 + 0.1 + 0.15)
        covered = 0
        for both, predicted, true, _ in random.multinomial(80, shares, size=2000):
            low, high = metrics.f1_interval(both, both + predicted, both + true)
            covered += low <= f1 <= high
        assert covered / 2000 == pytest.approx(0.95, abs=0.02)


class TestPairedDifference:
    def test_counts_and_difference(self) -> None:
        before = np.array([True, True, False, False, False])
        after = np.array([True, False, True, True, False])
        found = metrics.paired_difference(before, after)
        assert (found.helped, found.harmed, found.difference) == (2, 1, pytest.approx(0.2))

    def test_interval_is_that_of_a_resampling_of_photos(self) -> None:
        random = np.random.default_rng(2)
        before, after = random.random(400) < 0.7, random.random(400) < 0.75
        resampled = []
        for _ in range(4000):
            rows = random.integers(0, 400, 400)
            resampled.append(after[rows].mean() - before[rows].mean())
        expected = np.quantile(resampled, [0.025, 0.975])
        assert metrics.paired_difference(before, after).interval == pytest.approx(expected, abs=0.004)

    @pytest.mark.parametrize(("helped", "harmed"), [(0, 0), (1, 0), (5, 5), (30, 12), (3, 900)])
    def test_p_value_is_scipys_binomial_test(self, helped: int, harmed: int) -> None:
        stats = pytest.importorskip("scipy.stats")
        before = np.array([False] * helped + [True] * harmed + [True] * 20)
        after = np.array([True] * helped + [False] * harmed + [True] * 20)
        n = helped + harmed
        expected = stats.binomtest(helped, n).pvalue if n else 1.0
        assert metrics.paired_difference(before, after).p_value == pytest.approx(expected, rel=1e-9)

    def test_is_repeatable_and_antisymmetric(self) -> None:
        random = np.random.default_rng(2)
        before, after = random.random(200) < 0.7, random.random(200) < 0.8
        one, again = (metrics.paired_difference(before, after) for _ in range(2))
        back = metrics.paired_difference(after, before)
        assert one == again
        assert back.difference == -one.difference
        assert (back.helped, back.harmed) == (one.harmed, one.helped)

    def test_different_numbers_of_photos_are_refused(self) -> None:
        with pytest.raises(UsageError, match="cannot compare"):
            metrics.paired_difference(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


class TestLabels:
    def test_confusion_matrix_is_scikit_learns(self) -> None:
        probabilities, truth = sample()
        predicted = probabilities.argmax(axis=1)
        expected = sklearn_metrics.confusion_matrix(truth, predicted, labels=range(7))
        np.testing.assert_array_equal(metrics.confusion_matrix(truth, predicted, 7), expected)

    def test_label_scores_are_scikit_learns(self) -> None:
        probabilities, truth = sample()
        predicted = probabilities.argmax(axis=1)
        found = metrics.label_scores(metrics.confusion_matrix(truth, predicted, 7))
        precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
            truth, predicted, labels=range(7)
        )
        np.testing.assert_allclose(found.precision, precision)
        np.testing.assert_allclose(found.recall, recall)
        np.testing.assert_allclose(found.f1, f1)
        np.testing.assert_array_equal(found.support, support)

    def test_what_is_undefined_is_nan_and_not_nought(self) -> None:
        found = metrics.label_scores(np.array([[3, 0, 0], [1, 0, 0], [0, 0, 0]]))
        assert found.precision[0] == 0.75
        assert np.isnan(found.precision[1])
        assert np.isnan(found.recall[2])
        assert found.f1[1] == 0
        assert np.isnan(found.f1[2])
