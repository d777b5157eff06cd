"""Chooses the operating point that fits what a user asks for, and the promise that covers it."""

from __future__ import annotations

from typing import NamedTuple

from cascade.bundle.manifest import Bundle
from cascade.errors import UsageError
from cascade.guarantees.budget import BudgetPoint
from cascade.guarantees.risk_control import Promise
from cascade.inference.routing import ASK_MODES
from cascade.policy import OperatingPoint

__all__ = ["Choice", "choose_point"]


class Choice(NamedTuple):
    """An operating point and what comes with it.

    ``budget`` is the step of the dial that is used; None if the operating point was not chosen by budget.
    ``promise`` holds what was tested with the same ``cost_weight``; None if nothing was.
    """

    point: OperatingPoint
    promise: Promise | None
    budget: float | None


def choose_point(
    bundle: Bundle,
    *,
    operating_point: str = "default",
    max_error: float | None = None,
    budget: float | None = None,
    label_set: float | None = None,
    ask: str = "router",
) -> Choice:
    """Return the operating point for the arguments of `Cascade`, which explains them.

    Raises:
        UsageError: when arguments contradict each other or ask for what the bundle does not have.
    """
    if operating_point not in bundle.operating_points:
        raise UsageError(
            f"the bundle has no operating point {operating_point!r}; "
            f"choose one of {', '.join(sorted(bundle.operating_points))}"
        )
    if ask not in ASK_MODES:
        raise UsageError(f"ask is {ask!r}; choose one of {', '.join(ASK_MODES)}")
    for name, value in (("max_error", max_error), ("budget", budget)):
        if value is not None and operating_point != "default":
            raise UsageError(f"{name} is an operating point of its own; leave out operating_point")
    if ask != "router" and bundle.experts:
        if max_error is not None:
            raise UsageError(f"max_error was tested with ask='router'; with ask={ask!r} nothing is promised")
        if budget is not None:
            raise UsageError(f"budget is for ask='router'; with ask={ask!r} there is nothing to choose")
    point, promise = bundle.operating_points[operating_point], bundle.promise
    if budget is not None:
        step = _step(bundle, budget, label_set)
        point, promise, budget = step.operating_point, step.promise, step.budget
    if max_error is not None:
        if promise is None:
            raise UsageError(
                f"the bundle {bundle.name!r} promises nothing about errors"
                + ("" if budget is None else f" at budget {budget:g}")
                + ": it was made with too few photos in the split calibration; train it with more"
            )
        point = promise.operating_point(max_error)
    return Choice(point, promise, budget)


def _step(bundle: Bundle, budget: float, label_set: float | None) -> BudgetPoint:
    if bundle.budget is None:
        why = (
            "was made without a budget curve; pack it again with: cascade train"
            if bundle.experts
            else "has no experts that could be asked"
        )
        raise UsageError(f"there is no budget to choose: the bundle {bundle.name!r} {why}")
    step = bundle.budget.point(budget)
    if label_set is not None and step.budget != bundle.budget.default:
        raise UsageError(
            f"label sets were tested at the default budget, {bundle.budget.default:g}; "
            f"leave out label_set or budget {budget:g}"
        )
    return step
