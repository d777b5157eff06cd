"""Tests which share of wrong answers a bundle can promise.

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei 2021, arXiv 2110.01052) with split fixed-sequence
testing, carried out by MAPIE. Two parts of the split `calibration` have separate roles:

    fit part    fitted arbiter and router; here it only decides, from cross-fitted answers, which pairs of
                thresholds are tested, in which order, and with which one the test of each share begins
    held out    fitted nothing; the tests are made on it

A pair of thresholds is tested by the exact binomial test of "more than `max_error` of the answered photos are
answered wrongly". Pairs lie on one path, from strict to lax. The test of a share begins at the pair where the
fit part predicts it to be most powerful, and not among a handful of answered photos, where no test can
succeed. It goes on to laxer pairs until one does not pass; the last that passed is promised. Because order
and beginning do not depend on the held-out photos, no correction for testing often is due: the probability
that the promised pair errs more often is at most the level of the tests. Nor do the scope thresholds, which
are narrower for smaller shares, see `cascade.training.calibration.scope_limits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from mapie.risk_control.fwer_control import control_fwer
from scipy import stats

from cascade.arrays import Float64s, Floats, Ints
from cascade.evaluation.labelled_answers import Counts, LabelledAnswers
from cascade.guarantees.risk_control import Promise, PromisePoint
from cascade.policy import OperatingPoint
from cascade.training.calibration.scope_limits import StrangeAnswers, scope_limits

#: Scope threshold of every share and every pair, (S, K), or one for all.
Limits = Float64s | float | None

__all__ = ["CONFIDENCE", "LEVEL", "default_point", "fit_promise"]

#: Probability that a promise is kept.
CONFIDENCE: Final = 0.95
#: Level of the tests. Half of what the promise needs: the true error then stays below with 97.5 %, so that an
#: error measured on a few thousand photos, which scatters around the true one, does so with 95 % too; see
#: `benchmarks/promise_partitions.py`.
LEVEL: Final = 0.025
#: Shares of wrong answers that are tested; finer where a step means more.
_SHARES: Final = np.concatenate([np.arange(2, 100), np.arange(100, 500, 5), np.arange(500, 1000, 10)]) / 1000
#: How thresholds for labels and for parents go together: (1 - leaf) = slope * (1 - parent).
_SLOPES: Final = (1.0, 0.75, 0.5, 0.35, 0.25, 1.5, 2.0)
#: A broader answer is worth this much of a label when a slope is chosen.
_WORTH_OF_PARENT: Final = 0.5
#: A larger share of wrong answers is no promise that helps anybody.
_WORTHLESS: Final = 0.5
#: The scope never gets so narrow that a smaller share of the photos with labels is inside.
_FEWEST_INSIDE: Final = 0.5
#: Steps of the path: answered shares and shares of labels of the fit part.
_STEPS: Final = 80
_METHOD: Final = (
    "Learn then Test (arXiv 2110.01052): split fixed-sequence testing with exact binomial tests at 2.5 %, "
    "order and beginning of the sequence chosen on other photos"
)


def fit_promise(
    fit: LabelledAnswers,
    held_out: LabelledAnswers,
    *,
    max_error: float,
    cost_weight: float,
    scope_threshold: float | None,
    strangers: StrangeAnswers | None = None,
    groups: Mapping[str, tuple[LabelledAnswers, LabelledAnswers]] | None = None,
) -> Promise | None:
    """Test which shares of wrong answers can be promised.

    Args:
        fit: cross-fitted answers on the photos that fitted arbiter and router; chooses path and beginnings.
        held_out: answers on photos that fitted nothing.
        max_error: the share for which the path is made to give the most answers.
        cost_weight: when experts were asked.
        scope_threshold: which photos count as out of scope.
        strangers: photos that are none of the labels; the fewer wrong answers are promised, the fewer of them
            may be answered, see `scope_limits`. None leaves the scope threshold as it is.
        groups: name -> (fit, held out), of photos among these for which the promise must hold by itself,
            down to the smallest share that they can prove.

    Returns:
        The promise; None when nothing can be promised.
    """
    pairs = [(fit, held_out), *(groups or {}).values()]
    leaf, parent = min(
        (_path(fit, slope) for slope in _SLOPES),
        key=lambda path: -_worth(pairs, path, max_error, scope_threshold),
    )
    limits: Limits = scope_threshold
    if strangers is not None and scope_threshold is not None:
        narrowest = round(float(np.quantile(fit.score, _FEWEST_INSIDE)), 6)
        limits = scope_limits(strangers, leaf, parent, _SHARES, widest=scope_threshold, narrowest=narrowest)
    passed = _passed(pairs, leaf, parent, limits, below=1.0, most=len(leaf) - 1)
    method = [_METHOD]
    if groups:
        # A group of few photos cannot prove a small share. All photos together may, if the group shows
        # nothing that speaks against it; the method says so.
        least, most = passed[-1] if passed else (1.0, len(leaf) - 1)
        names = " and of ".join(groups)
        rest = _passed(pairs[:1], leaf, parent, limits, below=least, most=most, watched=pairs[1:])
        since = f", from {least:g} on" if rest else ""
        method += [f"kept also by the photos of {names} alone{since}"] if passed else []
        passed += rest
    if not passed:
        return None
    return Promise(
        confidence=CONFIDENCE,
        photos=len(held_out),
        method="; ".join(method),
        cost_weight=cost_weight,
        scope_threshold=scope_threshold,
        curve=_curve(passed, leaf, parent, limits),
    )


def _curve(
    passed: Sequence[tuple[float, int]], leaf: Float64s, parent: Float64s, limits: Limits
) -> tuple[PromisePoint, ...]:
    """Return what passed, from the largest share down, as points by rising share."""
    row_of = {share: row for row, share in enumerate(_SHARES.tolist())}
    curve: list[PromisePoint] = []
    for share, last in passed:
        limit = float(limits[row_of[share], last]) if isinstance(limits, np.ndarray) else limits
        point = PromisePoint(share, float(leaf[last]), float(parent[last]), limit)
        if curve and curve[-1][1:] == point[1:]:
            curve.pop()  # the same thresholds keep a smaller share too
        curve.append(point)
    return tuple(reversed(curve))


def _passed(
    pairs: Sequence[tuple[LabelledAnswers, LabelledAnswers]],
    leaf: Float64s,
    parent: Float64s,
    limits: Limits,
    *,
    below: float,
    most: int,
    watched: Sequence[tuple[LabelledAnswers, LabelledAnswers]] = (),
) -> list[tuple[float, int]]:
    """Return shares, from the largest down to the first that fails, and the last pair that passed for each.

    What is promised is then an interval. Where the scope is the same for all shares, coverage rises with the
    share on it, because beginnings do not fall and p-values do not rise.

    Args:
        pairs: (fit, held out), of photos that must keep the promise by themselves. That all of them do is an
            intersection-union test (Berger 1982): each is tested at the full level.
        leaf: thresholds of the path, (K,).
        parent: likewise.
        limits: scope thresholds, (S, K) or one for all.
        below: shares from here on are not tested.
        most: no laxer pair is promised.
        watched: (fit, held out), of photos among which no more than the share may be wrong; that proves
            nothing for them, and makes the test of the others only stricter.
    """
    begins = _beginnings(pairs, leaf, parent, limits)
    # (shares, pairs): probability of so few wrong ones if the share of wrong ones were max_error. A pair
    # that answers nobody has probability 1 and never passes.
    p_values = np.max([_p_values(tested.counts(leaf, parent, limits)) for _, tested in pairs], axis=0)
    for _, seen in watched:
        counts = seen.counts(leaf, parent, limits)
        p_values[counts.wrong > _SHARES[:, None] * counts.answered] = 1
    found: list[tuple[float, int]] = []
    for share, begin, row in zip(_SHARES[::-1], begins[::-1], p_values[::-1], strict=True):
        if share >= below or begin > most:
            continue
        passed = control_fwer(row[begin:], LEVEL, "split_fixed_sequence")
        if not len(passed):
            break
        # No smaller share has laxer thresholds, also where its scope is narrower.
        most = min(begin + int(passed[-1]), most)
        found.append((float(share), most))
    return found


def default_point(
    promise: Promise | None, max_error: float, cost_weight: float, scope_threshold: float | None
) -> OperatingPoint:
    """Return the bundle's default operating point.

    Args:
        promise: of the bundle.
        max_error: what it should promise; more, if that cannot be promised. Where not even half of the
            answers can be promised to be right, it answers with what is more probable than not, and promises
            nothing.
        cost_weight: when experts are asked.
        scope_threshold: what is out of scope.
    """
    if promise is None or promise.smallest > max(max_error, _WORTHLESS):
        return OperatingPoint(0.5, 0.5, cost_weight, scope_threshold)
    return promise.operating_point(max(max_error, promise.smallest))


def _path(fit: LabelledAnswers, slope: float) -> tuple[Float64s, Float64s]:
    """Return pairs of thresholds, two arrays (K,), from strict to lax, at round shares of the fit part."""
    # Along the path with parameter t, a label is given if p >= 1 - slope (1 - t): if this number is >= t.
    labels = 1 - (1 - fit.leaf) / slope
    answered = np.maximum(labels, fit.parent)
    shares = np.linspace(0, 1, _STEPS + 1)
    t = np.concatenate([np.quantile(answered, 1 - shares), np.quantile(labels, 1 - shares), [-slope]])
    t = np.unique(t)[::-1]
    # Six digits, rounded before the test: what is tested is what bundle.json says.
    leaf, parent = (np.round(np.clip(x, 0, 1), 6) for x in (1 - slope * (1 - t), t))
    keep = np.append(True, (np.diff(leaf) != 0) | (np.diff(parent) != 0))
    return leaf[keep], parent[keep]


def _p_values(found: Counts) -> Float64s:
    return np.asarray(stats.binom.cdf(found.wrong, found.answered, _SHARES[:, None]))


def _least_surplus(
    pairs: Sequence[tuple[LabelledAnswers, LabelledAnswers]],
    leaf: Float64s,
    parent: Float64s,
    limits: Limits,
    shares: Float64s,
) -> Float64s:
    """Return for every share the surplus of the group that has the least of it, (S, K)."""
    found = []
    for fit, held_out in pairs:
        counts = fit.counts(leaf, parent, limits)
        expected = counts.answered * (len(held_out) / max(len(fit), 1))
        found.append(_surplus(counts, expected, shares[:, None]))
    return np.asarray(np.min(found, axis=0))


def _worth(
    pairs: Sequence[tuple[LabelledAnswers, LabelledAnswers]],
    path: tuple[Float64s, Float64s],
    max_error: float,
    limit: float | None,
) -> float:
    """Predict from the fit part what a path gives at ``max_error``: labels and, for less, parents."""
    counts = pairs[0][0].counts(*path, limit)
    surplus = _least_surplus(pairs, *path, limit, np.array([max_error]))[0]
    worth = counts.labels + _WORTH_OF_PARENT * (counts.answered - counts.labels)
    return float((worth * (surplus >= stats.norm.ppf(1 - LEVEL))).max())


def _beginnings(
    pairs: Sequence[tuple[LabelledAnswers, LabelledAnswers]],
    leaf: Float64s,
    parent: Float64s,
    limits: Limits,
) -> Ints:
    """Return for every share the pair (S,) with which its test begins, never falling with the share."""
    best = _least_surplus(pairs, leaf, parent, limits, _SHARES).argmax(axis=1)
    # Not above where a larger share begins: shares that are hopeless must not spoil those that are not.
    return np.asarray(np.minimum.accumulate(best[::-1])[::-1])


def _surplus(counts: Counts, answered: Floats, share: Float64s) -> Float64s:
    """Predict by how many standard deviations the wrong answers stay below shares (S, 1), (S, K).

    Args:
        counts: of the fit part.
        answered: photos expected among the held-out ones.
        share: of wrong answers that is allowed.
    """
    # One wrong answer in two is added, so that a handful without any does not look like certainty.
    error = (counts.wrong + 1) / (counts.answered + 2)
    surplus = (share - error) * np.sqrt(answered / (share * (1 - share)))
    # Where even no wrong answer at all would not pass, there is nothing to gain.
    return np.where(answered * np.log1p(-share) <= np.log(LEVEL), surplus, -np.inf)
