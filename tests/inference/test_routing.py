from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.errors import UsageError
from cascade.inference.routing import ASK_MODES, choose_experts

GAIN = np.array([[0.05, -0.02], [0.02, 0.20], [0.0, 0.0]])
COST = np.array([1.0, 4.0])


def test_an_expert_is_asked_where_its_gain_exceeds_its_price() -> None:
    assert choose_experts(GAIN, COST, 0.03).tolist() == [[True, False], [False, True], [False, False]]


def test_a_gain_equal_to_the_price_is_not_enough() -> None:
    assert choose_experts(np.array([[0.25, 1.0]]), COST, 0.25).tolist() == [[False, False]]


def test_without_a_price_every_gain_counts() -> None:
    assert choose_experts(GAIN, COST, 0.0).tolist() == [[True, False], [True, True], [False, False]]


def test_modes() -> None:
    assert not choose_experts(GAIN, COST, 0.0, "never").any()
    assert choose_experts(GAIN, COST, 1e9, "always").all()
    assert (choose_experts(GAIN, COST, 0.03, "router") == choose_experts(GAIN, COST, 0.03)).all()
    assert set(ASK_MODES) == {"router", "never", "always"}


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown mode 'sometimes'; choose one of router, never, always"):
        choose_experts(GAIN, COST, 0.0, "sometimes")


@pytest.mark.parametrize("mode", ASK_MODES)
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (1, 1)])
def test_shapes(mode: str, shape: tuple[int, int]) -> None:
    asked = choose_experts(np.zeros(shape), np.ones(shape[1]), 0.1, mode)
    assert asked.shape == shape
    assert asked.dtype == np.bool_


def test_an_undefined_gain_asks_nobody() -> None:
    assert not choose_experts(np.array([[np.nan, np.nan]]), COST, 0.0).any()


gains = hnp.arrays(np.float64, (5, 3), elements=st.floats(-1, 1))
prices = st.floats(0, 10)


@given(gains, prices, prices)
def test_a_higher_price_never_asks_more(gain: np.ndarray, first: float, second: float) -> None:
    cost = np.array([0.5, 1.0, 3.0])
    low, high = sorted((first, second))
    assert not (choose_experts(gain, cost, high) & ~choose_experts(gain, cost, low)).any()
