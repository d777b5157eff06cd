from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.errors import BundleError
from cascade.labels import UNKNOWN, LabelTree
from cascade.policy import REASONS, Decision, OperatingPoint, decide

TREE = LabelTree(
    ("bed", "kitchen", "beach", "menu"),
    {"bed": "indoor", "kitchen": "indoor", "beach": "outdoor", "menu": "menu"},
)
POINT = OperatingPoint(leaf_threshold=0.6, parent_threshold=0.8, cost_weight=0.01)


def answer(*probabilities: float, point: OperatingPoint = POINT) -> Decision:
    return decide(np.array(probabilities), TREE, point)


# --- every corner, by example ----------------------------------------------------------------------------


def test_a_sure_leaf() -> None:
    assert answer(0.1, 0.7, 0.1, 0.1) == Decision("kitchen", "indoor", 0.7, "leaf")


def test_a_leaf_at_the_threshold_is_accepted() -> None:
    assert answer(0.6, 0.2, 0.1, 0.1).reason == "leaf"
    assert answer(np.nextafter(0.6, 0), 0.2, 0.1, 0.1).reason != "leaf"


def test_a_sure_parent_of_unsure_leaves() -> None:
    assert answer(0.5, 0.25, 0.125, 0.125, point=OperatingPoint(0.6, 0.75, 0.01)) == Decision(
        "indoor", "indoor", 0.75, "parent"
    )


def test_a_parent_at_the_threshold_is_accepted() -> None:
    at = OperatingPoint(0.6, 0.75, 0.01)
    above = OperatingPoint(0.6, float(np.nextafter(0.75, 1)), 0.01)
    assert answer(0.5, 0.25, 0.125, 0.125, point=at).reason == "parent"
    assert answer(0.5, 0.25, 0.125, 0.125, point=above).reason == "doubtful"


def test_nothing_sure() -> None:
    assert answer(0.3, 0.2, 0.4, 0.1) == Decision(UNKNOWN, None, 0.4, "doubtful")


def test_the_parent_need_not_be_that_of_the_best_leaf() -> None:
    # The beach leads, but indoors is likelier.
    decision = answer(0.3, 0.3, 0.4, 0.0, point=OperatingPoint(0.5, 0.55, 0.01))
    assert decision.label == "indoor"
    assert decision.confidence == pytest.approx(0.6)


def test_a_group_of_one_can_be_answered_as_parent() -> None:
    assert answer(0.1, 0.1, 0.1, 0.7, point=OperatingPoint(0.9, 0.6, 0.0)) == Decision(
        "menu", "menu", 0.7, "parent"
    )


def test_ties_go_to_the_first() -> None:
    assert answer(0.25, 0.25, 0.25, 0.25, point=OperatingPoint(0.2, 0.2, 0.0)).label == "bed"
    even = LabelTree(("a", "b"), {"a": "p", "b": "q"})
    assert decide(np.array([0.5, 0.5]), even, OperatingPoint(0.6, 0.5, 0.0)).label == "p"


def test_thresholds_of_zero_always_give_a_leaf() -> None:
    assert answer(0.25, 0.25, 0.25, 0.25, point=OperatingPoint(0.0, 0.0, 0.0)).reason == "leaf"


def test_thresholds_of_one_accept_only_certainty() -> None:
    certain = OperatingPoint(1.0, 1.0, 0.0)
    assert answer(0.0, 1.0, 0.0, 0.0, point=certain).reason == "leaf"
    assert answer(0.5, 0.5, 0.0, 0.0, point=certain).reason == "parent"
    assert answer(0.5, 0.25, 0.25, 0.0, point=certain).reason == "doubtful"


# --- what holds for all probabilities --------------------------------------------------------------------

weights = hnp.arrays(np.float64, 4, elements=st.floats(0, 1)).filter(lambda w: w.sum() > 1e-3)
rows = weights.map(lambda w: w / w.sum())
shares = st.floats(0, 1)
points = st.builds(OperatingPoint, shares, shares, st.floats(0, 10))


@given(rows, points)
def test_confidence_is_the_probability_of_the_label(row: np.ndarray, point: OperatingPoint) -> None:
    decision = decide(row, TREE, point)
    if decision.reason == "leaf":
        assert decision.confidence == row[TREE.labels.index(decision.label)] == row.max()
        assert decision.confidence >= point.leaf_threshold
    elif decision.reason == "parent":
        sums = TREE.parent_probabilities(row)
        assert decision.confidence == sums[TREE.parents.index(decision.label)] == sums.max()
        assert decision.confidence >= point.parent_threshold
    else:
        assert decision.confidence == row.max()
        assert decision.confidence < point.leaf_threshold
        assert TREE.parent_probabilities(row).max() < point.parent_threshold
    assert decision.reason in REASONS


@given(rows, points)
def test_label_and_parent_fit_together(row: np.ndarray, point: OperatingPoint) -> None:
    decision = decide(row, TREE, point)
    assert decision.parent == TREE.parent(decision.label)
    assert (decision.label == UNKNOWN) == (decision.parent is None)


@given(rows, points, shares)
def test_a_higher_leaf_threshold_never_makes_the_answer_finer(
    row: np.ndarray, point: OperatingPoint, other: float
) -> None:
    fineness = {"doubtful": 0, "parent": 1, "leaf": 2}
    low, high = sorted((point.leaf_threshold, other))
    loose = decide(row, TREE, OperatingPoint(low, point.parent_threshold, 0.0))
    strict = decide(row, TREE, OperatingPoint(high, point.parent_threshold, 0.0))
    assert fineness[strict.reason] <= fineness[loose.reason]


@given(rows, points)
def test_the_price_of_experts_does_not_change_the_answer(row: np.ndarray, point: OperatingPoint) -> None:
    free = OperatingPoint(point.leaf_threshold, point.parent_threshold, 0.0)
    assert decide(row, TREE, point) == decide(row, TREE, free)


@given(rows, points)
def test_the_row_is_not_changed(row: np.ndarray, point: OperatingPoint) -> None:
    before = row.copy()
    decide(row, TREE, point)
    assert (row == before).all()


@given(rows, points)
def test_single_precision_gives_the_same_kind_of_answer(row: np.ndarray, point: OperatingPoint) -> None:
    # Graphs give float32; only a value within rounding of a threshold may fall on its other side.
    exact, rounded = decide(row, TREE, point), decide(row.astype(np.float32), TREE, point)
    values = [*row, *TREE.parent_probabilities(row)]
    near = any(abs(v - t) < 1e-6 for v in values for t in (point.leaf_threshold, point.parent_threshold))
    if not near:
        assert exact.reason == rounded.reason


# --- operating points ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"leaf_threshold": -0.1}, "leaf_threshold is -0.1"),
        ({"leaf_threshold": 1.1}, "leaf_threshold is 1.1"),
        ({"leaf_threshold": float("nan")}, "leaf_threshold is nan"),
        ({"parent_threshold": 2.0}, "parent_threshold is 2.0"),
        ({"parent_threshold": float("nan")}, "parent_threshold is nan"),
        ({"cost_weight": -0.5}, "cost_weight is -0.5"),
        ({"cost_weight": float("nan")}, "cost_weight is nan"),
    ],
)
def test_impossible_operating_points_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        OperatingPoint(**{**POINT.to_dict(), **values})


def test_operating_points_survive_json() -> None:
    data = json.loads(json.dumps(POINT.to_dict()))
    assert OperatingPoint.from_dict(data) == POINT
    with pytest.raises(BundleError, match="an operating point is wrong"):
        OperatingPoint.from_dict({**data, "temperature": 1.0})
    del data["leaf_threshold"]
    with pytest.raises(BundleError, match="leaf_threshold"):
        OperatingPoint.from_dict(data)
