"""The test behind a promise: kept on unseen photos, and honest where it cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("mapie", reason="needs the extra `train`")

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cascade.evaluation.labelled_answers import LabelledAnswers, label_answers
from cascade.guarantees.risk_control import Promise
from cascade.labels import LabelTree
from cascade.training.calibration.risk_control import default_point, fit_promise
from cascade.training.calibration.scope_limits import ANSWERED, StrangeAnswers, scope_limits

TREE = LabelTree(tuple("abcdef"), dict(zip("abcdef", ("x", "x", "x", "y", "y", "z"), strict=True)))


def photos(n: int, seed: int, *, overconfident: float = 1.0, tree: LabelTree = TREE) -> LabelledAnswers:
    """Photos whose right label is drawn from their probabilities: calibrated, or too sure of themselves."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.full(len(tree.labels), 0.25), n)
    targets = (true.cumsum(1) > rng.random((n, 1))).argmax(1)
    claimed = true**overconfident
    claimed /= claimed.sum(1, keepdims=True)
    return label_answers(claimed, targets, rng.random(n), tree)


SCOPE = 0.95


def promise(
    fit: LabelledAnswers,
    held_out: LabelledAnswers,
    max_error: float = 0.1,
    strangers: StrangeAnswers | None = None,
) -> Promise | None:
    return fit_promise(
        fit, held_out, max_error=max_error, cost_weight=0.0, scope_threshold=SCOPE, strangers=strangers
    )


def measured(answers: LabelledAnswers, made: Promise, max_error: float) -> tuple[float, float]:
    """Share of wrong ones among the answered, and of answered ones."""
    point = made.operating_point(max_error)
    counts = answers.counts(
        np.array([point.leaf_threshold]), np.array([point.parent_threshold]), point.scope_threshold
    )
    return counts.wrong[0] / max(counts.answered[0], 1), counts.answered[0] / len(answers)


@pytest.fixture(scope="module")
def world() -> LabelledAnswers:
    """So many photos that what is measured on them is the truth."""
    return photos(60_000, 10_000)


@pytest.mark.parametrize("overconfident", [1.0, 3.0])
@pytest.mark.parametrize("max_error", [0.05, 0.1, 0.2])
def test_the_promise_is_kept(max_error: float, overconfident: float) -> None:
    """In at most 5 % of many repetitions may the true error be larger, calibrated or not."""
    truth = photos(30_000, 10_000, overconfident=overconfident)
    broken, repetitions = 0, 60
    for seed in range(repetitions):
        parts = (photos(n, seed + 1000 * n, overconfident=overconfident) for n in (300, 200))
        made = promise(*parts, max_error)
        if made is not None and max_error >= made.smallest:
            broken += measured(truth, made, max_error)[0] > max_error
    # More than this would happen in one of a thousand runs if the probability were 5 %.
    assert broken <= stats.binom.ppf(0.999, repetitions, 0.05)


def test_it_answers_where_it_can(world: LabelledAnswers) -> None:
    """A test that never answers would keep every promise."""
    coverage = []
    for seed in range(10):
        made = promise(photos(900, seed), photos(450, seed + 500), 0.2)
        assert made is not None
        assert made.smallest < 0.2
        coverage.append(measured(world, made, 0.2)[1])
    # What somebody would answer who knows the truth and only keeps the distance that the test of 450 photos
    # needs at its level of 2.5 %.
    grid = np.linspace(0, 1, 400)
    counts = world.counts(grid, grid, SCOPE)
    share = counts.answered / len(world)
    distance = 1.96 * np.sqrt(0.2 * 0.8 / np.maximum(450 * share, 1))
    possible = share[counts.wrong <= (0.2 - distance) * counts.answered].max()
    assert np.mean(coverage) > possible - 0.1


def test_nothing_is_promised_when_everything_is_wrong() -> None:
    n = 300
    sure, wrong = np.full(n, 0.99), np.zeros(n, dtype=bool)
    answers = LabelledAnswers(sure, wrong, sure, wrong, np.zeros(n))
    made = promise(answers, answers)
    assert made is None
    point = default_point(made, 0.1, 0.2, 1.5)
    assert (point.max_error, point.cost_weight, point.scope_threshold) == (None, 0.2, 1.5)


def test_nothing_small_is_promised_on_few_photos() -> None:
    """Even without any wrong answer, n photos exclude a share p only if (1 - p)^n is at most 2.5 %."""
    right = np.ones(50, dtype=bool)
    answers = LabelledAnswers(np.linspace(0.5, 1, 50), right, np.linspace(0.6, 1, 50), right, np.zeros(50))
    made = promise(answers, answers)
    assert made is not None
    assert made.smallest == pytest.approx(1 - 0.025 ** (1 / 50), abs=1e-3)
    assert measured(answers, made, made.smallest) == (0.0, 1.0)


def test_photos_out_of_scope_are_not_answered() -> None:
    fit, held_out = photos(900, 1), photos(450, 2)
    assert promise(fit, dataclasses.replace(held_out, score=np.ones(450))) is None


def strangers(n: int, seed: int) -> StrangeAnswers:
    """Photos that the model is as sure of as of others, but the scope stage finds them strange."""
    leaf = np.random.default_rng(seed).uniform(0.8, 1, n)
    return StrangeAnswers(leaf, leaf, np.random.default_rng(seed + 1).uniform(0.3, 1.2, n))


def test_the_fewer_wrong_answers_are_promised_the_fewer_strangers_are_answered() -> None:
    fit, held_out = photos(2000, 1), photos(2000, 2)
    made, plain = promise(fit, held_out, 0.2, strangers(4000, 3)), promise(fit, held_out, 0.2)
    assert made is not None
    assert plain is not None
    others = strangers(4000, 5)
    limits = []
    for share in (0.08, 0.15, 0.4):
        point = made.operating_point(share)
        assert others.answered(point) < ANSWERED * share + 0.03
        assert plain.operating_point(share).scope_threshold == SCOPE
        limits.append(point.scope_threshold)
    assert limits == sorted(limits)
    assert limits[0] < limits[-1] == SCOPE


def test_a_promise_with_a_narrower_scope_is_kept() -> None:
    truth, broken, repetitions = photos(30_000, 10_000), 0, 40
    for seed in range(repetitions):
        made = promise(photos(600, seed), photos(400, seed + 700), 0.1, strangers(200, seed))
        if made is not None and made.smallest <= 0.1:
            broken += measured(truth, made, 0.1)[0] > 0.1
    assert broken <= stats.binom.ppf(0.999, repetitions, 0.05)


def test_the_scope_keeps_half_of_the_photos_however_strange_they_are() -> None:
    fit, held_out, sure = photos(2000, 1), photos(2000, 2), np.ones(300)
    inside = StrangeAnswers(sure, sure, np.zeros(300))  # no score tells them from photos with a label
    made = promise(fit, held_out, 0.2, inside)
    assert made is not None
    assert made.operating_point(made.smallest).scope_threshold == pytest.approx(
        np.median(fit.score), abs=1e-5
    )


def test_limits_by_hand() -> None:
    leaf = np.array([0.9, 0.8, 0.95, 0.2])
    strange = StrangeAnswers(leaf, leaf, np.array([1.0, 2.0, 3.0, 0.5]))
    pairs, shares = np.array([0.85, 0.0]), np.array([0.05, 0.1, 0.2])
    limits = scope_limits(strange, pairs, pairs, shares, widest=2.5, narrowest=0.7)
    # Of four strangers 0, 1 and 2 may be answered; the stricter pair answers those of scores 1 and 3.
    assert limits[:, 0] == pytest.approx([1.0, 2.5, 2.5], abs=2e-6)
    assert limits[:, 1] == pytest.approx([0.7, 1.0, 2.0], abs=2e-6)
    answered = [(strange.score <= limit).sum() for limit in limits[1:, 1]]
    assert answered == [1, 2]


def test_a_parent_is_answered_where_only_the_parent_is_known() -> None:
    """Leaves of a group are told apart by guessing, groups without fail: 5 % wrong means broader answers."""
    rng = np.random.default_rng(0)

    def made(n: int) -> LabelledAnswers:
        targets = rng.integers(0, 6, n)
        probabilities = TREE.membership @ TREE.membership.T
        rows = probabilities[targets] / probabilities[targets].sum(1, keepdims=True)
        return label_answers(rows, targets, np.zeros(n), TREE)

    fit, held_out = made(900), made(450)
    kept = promise(fit, held_out, 0.05)
    assert kept is not None
    point = kept.operating_point(0.05)
    counts = held_out.counts(
        np.array([point.leaf_threshold]), np.array([point.parent_threshold]), point.scope_threshold
    )
    assert counts.wrong[0] == 0
    assert counts.answered[0] == 450
    assert 0 < counts.labels[0] < 120  # the group of one label


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), overconfident=st.sampled_from([0.5, 1.0, 4.0]), size=st.integers(40, 400))
def test_a_larger_share_never_lowers_coverage(seed: int, overconfident: float, size: int) -> None:
    fit = photos(2 * size, seed, overconfident=overconfident)
    held_out = photos(size, seed + 1, overconfident=overconfident)
    made = promise(fit, held_out)
    if made is None:
        return
    shares = np.linspace(made.smallest, 0.999, 40)
    coverage = [measured(held_out, made, float(share))[1] for share in shares]
    assert coverage == sorted(coverage)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_is_promised_passed_the_exact_test(seed: int) -> None:
    fit, held_out = photos(500, seed), photos(250, seed + 1)
    made = promise(fit, held_out)
    assert made is not None
    for share, leaf, parent, limit in made.curve:
        counts = held_out.counts(np.array([leaf]), np.array([parent]), limit)
        assert stats.binom.cdf(counts.wrong[0], counts.answered[0], share) <= 0.025 + 1e-12


def test_the_default_point_promises_what_is_asked_or_the_smallest() -> None:
    made = promise(photos(900, 1), photos(450, 2))
    assert made is not None
    assert default_point(made, 0.2, 0.0, None) == made.operating_point(0.2)
    assert default_point(made, 0.001, 0.0, None) == made.operating_point(made.smallest)
