"""Chooses the steps of the dial `--budget` and which of them is the default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from cascade.arrays import Float64s

__all__ = ["BUDGETS", "choose_default", "cost_weights", "on_the_frontier"]

#: Steps that are tried; finer where the first questions bring the most.
BUDGETS: Final = (0.0, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
#: Share of what asking everybody brings that the default must keep, in negative log likelihood.
_KEPT: Final = 0.9
#: Mean cost per photo of the default, in runs of the general model.
_DEAREST: Final = 1.5
_DIGITS: Final = 1e6


def cost_weights(gain: Float64s, costs: Float64s) -> list[float]:
    """Return the price of every budget of `BUDGETS`, from one at which nobody is asked to 0.

    At the price of budget b the mean extra cost is at most b times that at price 0, and at most one question
    (or as many as are equally promising) below it.

    Args:
        gain: (N, E), expected by the router.
        costs: (E,).
    """
    worth = gain / costs
    order = np.argsort(-worth, axis=None, kind="stable")
    order = order[worth.ravel()[order] > 0]
    spent = np.cumsum(costs[order % len(costs)])
    # No gain is above 1: not on any photo.
    prices = [(math.floor(_DIGITS / float(costs.min())) + 1) / _DIGITS]
    for budget in BUDGETS[1:-1]:
        bought = int(np.searchsorted(spent, budget * spent[-1], side="right")) if len(order) else 0
        # Asked is who is worth more than the price: the first who is not asked sets it. Raised to the next
        # number that bundle.json can say, so that the budget is kept also after rounding.
        price = 0.0
        if bought < len(order):
            price = (math.floor(_DIGITS * float(worth.ravel()[order[bought]])) + 1) / _DIGITS
        prices.append(min(price, prices[-1]))
    return [*prices, 0.0]


def on_the_frontier(curve: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of the steps that are worth their cost: likelier answers than every cheaper step.

    The first step, which asks nobody, always stays. So does the default, see `choose_default`.

    Args:
        curve: mean_cost and nll of every step, by rising budget.
    """
    kept = [0]
    for place in range(1, len(curve)):
        if curve[place]["nll"] < curve[kept[-1]]["nll"]:
            kept.append(place)
    return kept


def choose_default(
    curve: Sequence[Mapping[str, Any]], never: Mapping[str, float], always: Mapping[str, float]
) -> int:
    """Return the place of the default on the curve: the cheapest that keeps most of what asking brings.

    It costs at most half of asking everybody, and at most `_DEAREST`. Judged by the likelihood: a difference
    in accuracy would be chance on so few photos.

    Args:
        curve: mean_cost and nll of every step.
        never: the same with nobody asked.
        always: the same with everybody asked.
    """
    limit = min(always["mean_cost"] / 2, _DEAREST)
    affordable = [i for i, step in enumerate(curve) if step["mean_cost"] <= limit] or [0]
    enough = never["nll"] - _KEPT * max(never["nll"] - always["nll"], 0.0)
    good = [i for i in affordable if curve[i]["nll"] <= enough]
    return min(good or [min(affordable, key=lambda i: curve[i]["nll"])], key=lambda i: curve[i]["mean_cost"])
