"""Steps of the dial: budgets are kept, on the photos that set the prices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.training.calibration.budget_steps import BUDGETS, choose_default, cost_weights, on_the_frontier

GAINS = hnp.arrays(np.float64, (30, 3), elements=st.floats(-0.5, 1.0))
COSTS = hnp.arrays(np.float64, 3, elements=st.floats(0.05, 4.0))


def spent(gain: np.ndarray, costs: np.ndarray, weight: float) -> float:
    return float(((gain > weight * costs) @ costs).mean())


@given(GAINS, COSTS)
def test_budgets_are_kept_and_rise(gain: np.ndarray, costs: np.ndarray) -> None:
    weights = cost_weights(gain, costs)
    assert len(weights) == len(BUDGETS)
    assert weights[-1] == 0.0
    assert weights == sorted(weights, reverse=True)
    whole = spent(gain, costs, 0.0)
    for budget, weight in zip(BUDGETS, weights, strict=True):
        assert spent(gain, costs, weight) <= budget * whole + 1e-9


@given(COSTS)
def test_budget_0_asks_nobody_whatever_the_gain(costs: np.ndarray) -> None:
    certain = np.ones((4, 3), dtype=np.float32)
    weight = cost_weights(np.zeros((2, 3)), costs)[0]
    assert not (certain > weight * costs).any()
    assert weight * costs.min() >= 1.0


def test_budgets_are_used_up() -> None:
    rng = np.random.default_rng(0)
    gain, costs = rng.uniform(-0.2, 0.3, (2000, 3)), np.array([1.0, 0.5, 2.0])
    whole = spent(gain, costs, 0.0)
    for budget, weight in zip(BUDGETS, cost_weights(gain, costs), strict=True):
        # One question, and what six digits of the price cut off.
        assert spent(gain, costs, weight) == pytest.approx(budget * whole, abs=5 * costs.max() / 2000)


def row(cost: float, nll: float) -> dict[str, float]:
    return {"mean_cost": cost, "nll": nll}


def test_the_default_is_the_cheapest_that_keeps_most() -> None:
    never, always = row(1.0, 1.0), row(4.0, 0.6)
    curve = [row(1.0, 1.0), row(1.2, 0.8), row(1.5, 0.63), row(1.8, 0.65), row(2.5, 0.61)]
    assert choose_default(curve, never, always) == 2
    # None keeps enough within half the cost: the likeliest that can be paid.
    assert choose_default([row(1.0, 1.0), row(1.4, 0.9), row(2.5, 0.6)], never, always) == 1
    # Half of a dear bundle is still too much for a default.
    assert choose_default([row(1.0, 1.0), row(1.4, 0.9), row(2.5, 0.6)], never, row(8.0, 0.6)) == 1
    # Experts that do not help are not asked.
    assert choose_default([*curve[:1], row(1.2, 1.1)], never, row(4.0, 1.2)) == 0


def test_a_step_that_costs_more_and_brings_nothing_is_left_out() -> None:
    nll = [1.0, 0.8, 0.85, 0.8, 0.7, 0.71]
    curve = [{"mean_cost": 1 + place / 10, "nll": value} for place, value in enumerate(nll)]
    assert on_the_frontier(curve) == [0, 1, 4]
    always = {"mean_cost": 4.0, "nll": 0.7}
    assert choose_default(curve, curve[0], always) in on_the_frontier(curve)
    assert on_the_frontier([{"mean_cost": 1.0, "nll": 1.0}, {"mean_cost": 2.0, "nll": 1.2}]) == [0]
