"""Finds the operating point for a budget: the dial between speed and accuracy.

A budget of b, 0..1, is b times the mean extra cost of asking wherever the router expects any gain. The dial
has steps: each has its own ``cost_weight``, and thresholds and a risk bound that were tested with just that
value, so that the bound holds for every budget. Between two steps, and above the last one, the lower one is
taken: a bundle has no step that costs more than another one and gives no better answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from cascade.errors import BundleError, UsageError
from cascade.guarantees.risk_control import Promise
from cascade.policy import OperatingPoint
from cascade.validated import NonNegative, Share, Validated

__all__ = ["BudgetCurve", "BudgetPoint"]

#: 0.3 given as 0.1 + 0.2 must not fall to the step below.
_ROUNDING = 1e-9


class BudgetPoint(Validated, frozen=True):
    """One step of the dial; the figures are cross-fitted on calibration photos.

    Attributes:
        budget: 0..1.
        mean_cost: per photo, in units of one run of the general model.
        accuracy: share of photos whose most probable label is right.
        nll: negative log likelihood, nats per photo.
        deferral_rate: share of photos about which any expert is asked.
        operating_point: ``cost_weight``, and the thresholds that were tested with it.
        promise: what was tested with this ``cost_weight``; None if nothing can be promised.

    Raises:
        BundleError: when a value makes no sense, or the parts have different values of ``cost_weight``.
    """

    budget: Share
    mean_cost: NonNegative
    accuracy: Share
    nll: NonNegative
    deferral_rate: Share
    operating_point: OperatingPoint
    promise: Promise | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.promise is None:
            if self.operating_point.max_error is not None:
                raise BundleError(f"budget {self.budget:g}: promises an error without a promise")
        elif (
            self.promise.cost_weight != self.operating_point.cost_weight
            or self.operating_point.scope_threshold not in self.promise.scope_thresholds
        ):
            raise BundleError(f"budget {self.budget:g}: the promise was tested at another operating point")

    @property
    def cost_weight(self) -> float:
        """The gain that one unit of cost must bring."""
        return self.operating_point.cost_weight


class BudgetCurve(Validated, frozen=True):
    """Every step of the dial.

    Attributes:
        default: budget of the bundle's default operating point; one of the steps.
        points: by rising budget, from 0; cost never falls, ``cost_weight`` never rises.

    Raises:
        BundleError: when the steps do not make a dial.
    """

    default: Share
    points: Annotated[tuple[BudgetPoint, ...], msgspec.Meta(min_length=1, max_length=1000)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points[0].budget != 0.0:
            raise BundleError("budget: the dial must begin at 0")
        for before, after in zip(self.points, self.points[1:], strict=False):
            if not before.budget < after.budget:
                raise BundleError(f"budget: does not rise after {before.budget:g}")
            if after.mean_cost < before.mean_cost or after.cost_weight > before.cost_weight:
                raise BundleError(f"budget {after.budget:g}: costs less than {before.budget:g}")
        if self.default not in [point.budget for point in self.points]:
            raise BundleError(f"budget: the default, {self.default:g}, is no step of the dial")

    def check(self, costs: Sequence[float], default: OperatingPoint) -> None:
        """Check the dial against its bundle: what the experts cost, and the default operating point.

        Raises:
            BundleError: when they do not fit.
        """
        if not costs:
            raise BundleError("a budget needs experts that can be asked")
        # No router expects a gain above 1, see `cascade.training.export.decision_graphs`.
        if self.points[0].cost_weight * min(costs) < 1.0:
            raise BundleError("budget 0 must ask nobody; its cost_weight is too small for that")
        if self.point(self.default).operating_point != default:
            raise BundleError("the default budget is not the operating point 'default'")

    def point(self, budget: float) -> BudgetPoint:
        """Return the step at a budget, or the next one below it.

        Raises:
            UsageError: when it is not in 0..1.
        """
        if not 0.0 <= budget <= 1.0:
            raise UsageError(
                f"budget is {budget}; it goes from 0, the general model alone, to 1, ask whenever it may help"
            )
        return [point for point in self.points if point.budget <= budget + _ROUNDING][-1]
