"""Label sets: the formula, the conformal guarantee on photos that fitted nothing, and refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.errors import BundleError, UsageError
from cascade.guarantees.conformal_sets import LabelSets, set_scores

SETS = LabelSets(penalty=0.1, free_ranks=1, photos=100, thresholds=((0.5, 0.0), (0.8, 0.55), (0.95, 0.9)))


def drawn(n: int, seed: int, labels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(labels, 0.3), n)
    right = (probabilities.cumsum(1) > rng.random((n, 1))).argmax(1)
    return probabilities, np.minimum(right, labels - 1)


def test_scores_by_hand() -> None:
    order, scores = set_scores(np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]), 0.1, 1)
    assert order.tolist() == [[1, 2, 0], [2, 0, 1]]
    np.testing.assert_allclose(scores, [[0, 0.5, 0.9], [0, 0.8, 1.0]])


@pytest.mark.parametrize(
    ("coverage", "columns"), [(0.3, (1,)), (0.5, (1,)), (0.7, (1, 2)), (0.95, (1, 2, 0))]
)
def test_the_next_stored_coverage_is_taken(coverage: float, columns: tuple[int, ...]) -> None:
    assert SETS.columns(np.array([0.2, 0.5, 0.3]), coverage) == columns


def test_more_than_can_be_given_is_refused() -> None:
    with pytest.raises(UsageError, match=r"0\.99 is more than this bundle can give; the largest is 0\.95"):
        SETS.threshold(0.99)
    with pytest.raises(UsageError, match="a share between 0 and 1"):
        SETS.threshold(1.0)


weights = hnp.arrays(np.float64, 5, elements=st.floats(0, 1)).filter(lambda w: w.sum() > 1e-3)


@given(weights, st.floats(0.01, 0.95), st.floats(0.01, 0.95))
def test_sets_grow_with_coverage_and_hold_the_best(row: np.ndarray, one: float, other: float) -> None:
    row = row / row.sum()
    small, large = (SETS.columns(row, coverage) for coverage in sorted((one, other)))
    assert large[: len(small)] == small
    assert small[0] == int(row.argmax())


def test_numbers_survive_json() -> None:
    assert LabelSets.from_dict(json.loads(json.dumps(SETS.to_dict()))) == SETS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": -1}, "penalty is -1; expected `float` >= 0.0"),
        ({"free_ranks": -1}, "free_ranks is -1; expected `int` >= 0"),
        ({"thresholds": []}, r"thresholds is \[\]; expected `array` of length >= 1"),
        ({"thresholds": [[0.9, 0.5], [0.8, 0.6]]}, "out of order after 0.9"),
        ({"thresholds": [[0.8, 0.5], [0.9, 0.4]]}, "out of order after 0.8"),
        ({"penalty": "none"}, "penalty is 'none'; expected `float`"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        LabelSets.from_dict(SETS.to_dict() | changes)


@pytest.mark.parametrize("overconfident", [1.0, 3.0])
def test_the_right_label_is_inside_as_often_as_wanted(overconfident: float) -> None:
    """Also when the probabilities are wrong: that is what conformal sets are for."""
    fitting = pytest.importorskip(
        "cascade.training.calibration.conformal_sets", reason="needs the extra `train`"
    )

    def claimed(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        probabilities, right = drawn(n, seed)
        wrong = probabilities**overconfident
        return wrong / wrong.sum(1, keepdims=True), right

    unseen, right = claimed(4000, 1)
    for coverage in (0.8, 0.9, 0.95):
        found = []
        for seed in range(20):
            sets = fitting.fit_label_sets(claimed(400, 100 + seed), claimed(200, 200 + seed))
            order, scores = set_scores(unseen, sets.penalty, sets.free_ranks)
            inside = (order == right[:, None]) & (scores <= sets.threshold(coverage))
            found.append(inside.any(1).mean())
        # The guarantee is on average over the photos that the threshold was taken from.
        spread = np.std(found) / np.sqrt(len(found))
        assert np.mean(found) >= coverage - 3 * spread
        assert np.mean(found) <= coverage + 0.06


def test_too_few_photos_give_no_high_coverage() -> None:
    fitting = pytest.importorskip(
        "cascade.training.calibration.conformal_sets", reason="needs the extra `train`"
    )
    sets = fitting.fit_label_sets(drawn(60, 1), drawn(19, 2))
    assert sets.largest == 0.95  # ceil(20 * 0.95) = 19, the last of them
