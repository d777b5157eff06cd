"""Simple rules: the comparison is at equal cost, and finds the better rule where it is known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from hypothesis import given
from hypothesis import strategies as st
from simple_rules import (
    asked_within,
    combine,
    compare_asking,
    compare_combining,
    doubt_orders,
)
from sklearn.model_selection import KFold

from cascade.arrays import softmax
from cascade.labels import LabelTree
from cascade.training.calibration.stage_logits import StageLogits

PARENTS = {"a": "left", "b": "left", "c": "right", "d": "right"}
TREE = LabelTree(tuple(PARENTS), PARENTS)
EXPERTS = {"one": ("a", "b"), "two": ("c", "d")}
COSTS = np.array([1.0, 0.4])


def probabilities(n: int = 300, seed: int = 0) -> np.ndarray:
    return softmax(np.random.default_rng(seed).normal(0, 2, (n, 4)))


@given(st.integers(0, 5), st.floats(0, 1.4))
def test_no_more_is_spent_and_less_than_a_question_is_left(seed: int, spent: float) -> None:
    before = probabilities(50, seed)
    for order in doubt_orders(before, TREE.labels, EXPERTS).values():
        assert sorted(order) == list(range(100))
        deferred = asked_within(order, COSTS, 50, spent)
        cost = (deferred @ COSTS).mean()
        assert cost <= spent + 1e-9
        assert deferred.all() or cost > spent - COSTS.max() / 50 - 1e-9


def test_the_doubtful_are_asked_first_and_the_likeliest_expert() -> None:
    before = np.array([[0.9, 0.1, 0.0, 0.0], [0.1, 0.1, 0.5, 0.3], [0.3, 0.25, 0.25, 0.2]])
    orders = doubt_orders(before, TREE.labels, EXPERTS)
    assert orders["confidence"].tolist() == [4, 3, 0, 5, 2, 1]
    assert orders["margin"].tolist() == orders["confidence"].tolist()
    peaked = np.array([[0.52, 0.48, 0.0, 0.0], [0.55, 0.15, 0.15, 0.15]])
    found = doubt_orders(peaked, TREE.labels, EXPERTS)
    assert (found["margin"][0] // 2, found["entropy"][0] // 2) == (0, 1)


def test_the_table_is_at_equal_cost_and_finds_the_better_rule() -> None:
    """Experts know everything about every other photo, whatever the general model says: only a router that
    knows which can tell, and one that asks about the wrong ones is worse than every rule."""
    rng = np.random.default_rng(3)
    n = 400
    targets = rng.integers(0, 4, n)
    before = softmax(rng.normal(0, 1, (n, 4)))
    mine = np.arange(n) % 2 == 0
    column = np.where(targets < 2, 0, 1)

    def answers(deferred: np.ndarray) -> np.ndarray:
        out = before.copy()
        helped = mine & deferred[np.arange(n), column]
        out[helped] = 0.02
        out[helped, targets[helped]] = 0.94
        return out

    def asks(photos: np.ndarray) -> np.ndarray:
        deferred = np.zeros((n, 2), dtype=bool)
        deferred[photos, column[photos]] = True
        return deferred

    good = {0.5: asks(np.flatnonzero(mine)[:100]), 1.0: asks(np.flatnonzero(mine))}
    found = compare_asking(before, good, targets, answers, COSTS, TREE, EXPERTS)
    assert found["best"] == "expected gain"
    bad = {0.5: asks(np.flatnonzero(~mine))}
    worse = compare_asking(before, bad, targets, answers, COSTS, TREE, EXPERTS)
    assert worse["best"] != "expected gain"
    for name, rows in found["rules"].items():
        assert [row["budget"] for row in rows] == [0.5, 1.0]
        for row, reference in zip(rows, found["rules"]["expected gain"], strict=True):
            assert reference["mean_cost"] - COSTS.max() / n - 1e-4 <= row["mean_cost"]
            assert row["mean_cost"] <= reference["mean_cost"] + 1e-4
        assert found["mean"][name]["nll"] == pytest.approx(np.mean([row["nll"] for row in rows]), abs=1e-3)


def outputs(n: int = 400, seed: int = 0) -> StageLogits:
    """Each of three voters sees the label through noise of its own, so that pooling them is best."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    general = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[y]
    experts = {}
    for name, own in EXPERTS.items():
        index = [TREE.labels.index(label) for label in own]
        at = np.array([index.index(t) if t in index else 2 for t in y])
        experts[name] = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[at]
    return StageLogits(general, experts, y)


def test_rules_for_combining_are_what_they_say() -> None:
    data = outputs(60)
    deferred = np.random.default_rng(1).random((60, 2)) < 0.5
    found = {name: np.exp(logs) for name, logs in combine(data, TREE, EXPERTS, deferred).items()}
    p = softmax(data.general)
    np.testing.assert_allclose(found["general alone"], p)
    for n in range(60):
        votes = [p[n]]
        for column, (name, own) in enumerate(EXPERTS.items()):
            if deferred[n, column]:
                q = softmax(data.experts[name])[n]
                foreign = [k for k, label in enumerate(TREE.labels) if label not in own]
                vote = np.zeros(4)
                vote[[TREE.labels.index(label) for label in own]] = q[:-1]
                vote[foreign] = q[-1] * p[n, foreign] / p[n, foreign].sum()
                votes.append(vote)
        np.testing.assert_allclose(found["average"][n], np.mean(votes, axis=0))
        np.testing.assert_allclose(found["the most confident"][n], max(votes, key=max))
        product = np.prod(votes, axis=0) ** (1 / len(votes))
        np.testing.assert_allclose(
            found["product of experts"][n] / found["product of experts"][n].sum(), product / product.sum()
        )


def test_the_better_rule_for_combining_is_found() -> None:
    """Noise is independent, so the product of experts is right up to a temperature, and nothing beats it."""
    data = outputs(2000)
    folds = list(KFold(4, shuffle=True, random_state=0).split(data.general))
    deferred = np.ones((2000, 2), dtype=bool)
    uniform = np.full((2000, 4), 0.25)
    found = compare_combining(data, TREE, EXPERTS, folds, lambda _: uniform, {"everybody": deferred})
    table = found["everybody"]
    assert table["best"] == "product of experts"
    rules = table["rules"]
    assert rules["arbiter"]["nll"] == pytest.approx(np.log(4), abs=1e-4)
    assert rules["product of experts"]["accuracy"] > rules["general alone"]["accuracy"] + 0.03
    # One temperature each: none is judged by its overconfidence.
    assert max(rules[name]["ece"] for name in rules if name != "arbiter") < 0.08
