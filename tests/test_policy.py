from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.bundle.manifest import Bundle
from cascade.errors import BundleError, UsageError
from cascade.guarantees.budget import BudgetCurve, BudgetPoint
from cascade.guarantees.conformal_sets import LabelSets
from cascade.guarantees.risk_control import Promise, PromisePoint
from cascade.inference.operating_point import choose_point
from cascade.labels import UNKNOWN, LabelTree
from cascade.policy import REASONS, Decision, OperatingPoint, answer_kind, best_of, decide

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
points = st.builds(OperatingPoint, shares, shares, st.just(0.0))  # its cost_weight is for the router


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
    assert OperatingPoint.from_dict({**data, "of a later version": 1.0}) == POINT
    del data["leaf_threshold"]
    with pytest.raises(BundleError, match="missing required field `leaf_threshold`"):
        OperatingPoint.from_dict(data)


# --- out of scope ----------------------------------------------------------------------------------------

SCOPED = POINT.replace(scope_threshold=1.5)


@pytest.mark.parametrize(
    ("score", "reason"),
    [(1.5, "leaf"), (np.nextafter(1.5, 2), "out_of_scope"), (-9.0, "leaf"), (float("inf"), "out_of_scope")],
)
def test_what_is_stranger_than_the_threshold_is_unknown(score: float, reason: str) -> None:
    decision = decide(np.array([0.1, 0.7, 0.1, 0.1]), TREE, SCOPED, score)
    assert decision.reason == reason
    assert decision.label == ("kitchen" if reason == "leaf" else UNKNOWN)
    assert decision.confidence == 0.7


def test_a_score_that_is_no_number_is_out_of_scope() -> None:
    assert decide(np.array([0.1, 0.7, 0.1, 0.1]), TREE, SCOPED, float("nan")).reason == "out_of_scope"


def test_a_threshold_without_a_score_is_misuse() -> None:
    with pytest.raises(UsageError, match="needs the photo's scope score"):
        decide(np.array([0.1, 0.7, 0.1, 0.1]), TREE, SCOPED)


def test_without_a_threshold_no_score_matters() -> None:
    row = np.array([0.1, 0.7, 0.1, 0.1])
    assert decide(row, TREE, POINT, 1e9) == decide(row, TREE, POINT)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_impossible_scope_thresholds_are_refused(value: float) -> None:
    with pytest.raises(BundleError, match="scope_threshold"):
        POINT.replace(scope_threshold=value)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_impossible_promises_are_refused(value: float) -> None:
    with pytest.raises(BundleError, match="max_error"):
        POINT.replace(max_error=value)


@given(hnp.arrays(np.float64, (9, 4), elements=st.floats(0.01, 1)), points)
def test_many_rows_are_decided_as_one_by_one(raw: np.ndarray, point: OperatingPoint) -> None:
    probabilities = raw / raw.sum(1, keepdims=True)
    best = best_of(probabilities, TREE)
    kinds = answer_kind(
        best.leaf_confidence, best.parent_confidence, True, point.leaf_threshold, point.parent_threshold
    )
    assert list(kinds) == [decide(row, TREE, point).reason for row in probabilities]


# --- the description that goes with every bundle ---------------------------------------------------------

DESCRIPTION = Path(__file__).parents[1] / "cascade" / "training" / "export" / "policy.md"


def described(text: str) -> dict[str, Any]:
    """Run the code of a POLICY.md, which imports nothing."""
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert "import" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    return names


PROMISE = Promise(0.95, 400, "", 0.02, 1.5, (PromisePoint(0.05, 0.9, 0.8), PromisePoint(0.2, 0.5, 0.4)))
SETS = LabelSets(0.05, 1, 400, ((0.5, 0.1), (0.8, 0.6), (0.9, 0.85)))
MANIFEST = {
    "labels": [{"label": label, "parent": TREE.parent_of[label]} for label in TREE.labels],
    "operating_points": {"default": SCOPED.to_dict()},
    "promise": PROMISE.to_dict(),
    "label_sets": SETS.to_dict(),
}


@given(rows, st.one_of(st.none(), st.floats(0.05, 0.95)), st.floats(0, 3), st.floats(0.1, 0.9))
def test_the_description_is_the_policy(
    row: np.ndarray, max_error: float | None, score: float, coverage: float
) -> None:
    their = described(DESCRIPTION.read_text(encoding="utf-8"))
    point = SCOPED if max_error is None else PROMISE.operating_point(max_error)
    ours = decide(row, TREE, point, score)
    theirs = their["decide"](MANIFEST, their["operating_point"](MANIFEST, max_error), row.tolist(), score)
    near = any(
        abs(p - t) < 1e-9
        for p in (*row, *TREE.parent_probabilities(row))
        for t in (point.leaf_threshold, point.parent_threshold)
    )
    assert near or theirs == (ours.label, ours.reason)
    names = [TREE.labels[column] for column in SETS.columns(row, coverage)]
    assert their["label_set"](MANIFEST, row.tolist(), coverage) == names


def test_the_description_knows_budgets() -> None:
    """Between two steps the lower one holds, with the promise that was tested there."""
    their = described(DESCRIPTION.read_text(encoding="utf-8"))
    steps = []
    for budget, weight in ((0.0, 2.0), (0.5, 0.1), (1.0, 0.0)):
        promise = Promise(0.95, 400, "", weight, 1.5, (PromisePoint(0.1 + budget / 5, 0.9, 0.8),))
        steps.append(BudgetPoint(budget, 1 + budget, 0.8, 0.6, budget, promise.operating_point(0.5), promise))
    dial = BudgetCurve(
        0.5,
        (
            *steps[:-1],
            steps[-1].replace(
                promise=None, operating_point=steps[-1].operating_point.replace(max_error=None)
            ),
        ),
    )
    manifest = MANIFEST | {"budget": dial.to_dict()}
    for budget in (0.0, 0.3, 0.5, 0.999, 1.0):
        ours = dial.point(budget)
        assert their["operating_point"](manifest, None, budget) == ours.operating_point.to_dict()
        if ours.promise is None:
            with pytest.raises(ValueError, match="nothing can be promised"):
                their["operating_point"](manifest, 0.4, budget)
        else:
            found = their["operating_point"](manifest, 0.4, budget)
            expected = ours.promise.operating_point(0.4).to_dict()
            assert found == {key: expected[key] for key in found}


def test_the_description_refuses_what_cannot_be_promised() -> None:
    their = described(DESCRIPTION.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=r"the smallest that can be promised is 0\.05"):
        their["operating_point"](MANIFEST, 0.01)


def test_the_shipped_bundle_is_what_its_description_says(shipped_bundle: Path) -> None:
    """Its golden decisions, replayed with the code of its own POLICY.md and with this package."""
    if not (shipped_bundle / "POLICY.md").is_file():
        pytest.skip("the bundle in this checkout was made before POLICY.md was")
    their = described((shipped_bundle / "POLICY.md").read_text(encoding="utf-8"))
    manifest = json.loads((shipped_bundle / "bundle.json").read_text(encoding="utf-8"))
    golden = json.loads((shipped_bundle / "golden" / "decisions.json").read_text(encoding="utf-8"))
    bundle = Bundle.load(shipped_bundle)
    reasons = set()
    for case in golden["cases"]:
        share, row, score = case["max_error"], case["probabilities"], case["score"]
        budget = case.get("budget")
        point = choose_point(bundle, max_error=share, budget=budget).point
        ours = decide(np.array(row), bundle.tree, point, score)
        assert (ours.label, ours.parent, ours.reason) == (case["label"], case["parent"], case["reason"])
        assert ours.confidence == pytest.approx(case["confidence"])
        chosen = (share,) if budget is None else (share, budget)
        theirs = their["decide"](manifest, their["operating_point"](manifest, *chosen), row, score)
        assert theirs == (case["label"], case["reason"])
        wanted = case.get("label_set")
        if wanted is not None:
            assert their["label_set"](manifest, row, wanted["coverage"]) == wanted["labels"]
        reasons.add(case["reason"])
    assert reasons == set(REASONS)
