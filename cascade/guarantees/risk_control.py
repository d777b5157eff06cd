"""Finds the operating point whose share of wrong answers stays below what a user accepts, or refuses.

The promise, for a value of `max_error` that was chosen without looking at the curve: on photos like those of
the calibration set, at most `max_error` of the *answered* photos are answered wrongly, whether the answer is
a label or a broader one. It is kept with probability `confidence` over the draw of the calibration photos.
Each value keeps this on its own; nothing is said about all values at once. The test is in
`cascade.training.calibration.risk_control`.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from cascade.errors import BundleError, UsageError
from cascade.policy import OperatingPoint
from cascade.validated import NonNegative, OpenShare, Share, Validated

__all__ = ["Promise", "PromisePoint"]


class PromisePoint(NamedTuple):
    """The thresholds with which at most ``max_error`` of the answers is wrong.

    ``scope_threshold`` is that of the promise where it is None.
    """

    max_error: OpenShare
    leaf_threshold: Share
    parent_threshold: Share
    scope_threshold: float | None = None


class Promise(Validated, frozen=True):
    """All shares of wrong answers that a bundle can promise, and the thresholds for each.

    Attributes:
        confidence: probability that a promise is kept, 0..1.
        photos: number of photos that the promises were tested on; nothing else was fitted on them.
        method: the test, in words.
        cost_weight: that of the test; the promise holds only when experts are asked with it.
        scope_threshold: the largest of the test; None if the bundle has no scope stage.
        curve: by rising ``max_error``; thresholds of labels and parents never rise. Between two points the
            lower one holds.

    Raises:
        BundleError: when a value makes no sense.
    """

    confidence: OpenShare
    photos: int
    method: str
    cost_weight: NonNegative
    scope_threshold: float | None
    curve: Annotated[tuple[PromisePoint, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        for before, after in zip(self.curve, self.curve[1:], strict=False):
            if not before.max_error < after.max_error:
                raise BundleError(f"promise: max_error does not rise after {before.max_error}")
            if after[1] > before[1] or after[2] > before[2]:
                raise BundleError(f"promise: a threshold rises at max_error {after.max_error}")
        limits = [point.scope_threshold for point in self.curve if point.scope_threshold is not None]
        if limits and (self.scope_threshold is None or max(limits) > self.scope_threshold):
            raise BundleError("promise: a scope threshold of the curve is above its scope_threshold")

    @property
    def smallest(self) -> float:
        """The smallest ``max_error`` that can be promised."""
        return self.curve[0].max_error

    @property
    def scope_thresholds(self) -> set[float | None]:
        """Every scope threshold that was tested."""
        return {self.scope_threshold, *(self._point(point).scope_threshold for point in self.curve)}

    def operating_point(self, max_error: float) -> OperatingPoint:
        """Return the operating point for a share of wrong answers.

        Args:
            max_error: accepted share of wrong ones among the answers, 0..1.

        Raises:
            UsageError: when it is no share, or smaller than what can be promised; names the smallest.
        """
        if not 0.0 < max_error < 1.0:
            raise UsageError(f"max_error is {max_error}; it is a share between 0 and 1, e.g. 0.05 for 5 %")
        kept = [point for point in self.curve if point.max_error <= max_error]
        if not kept:
            raise UsageError(
                f"max_error {max_error:g} cannot be promised with this bundle; the smallest that can is "
                f"{self.smallest:g} (tested on {self.photos} photos)"
            )
        return self._point(kept[-1]._replace(max_error=max_error))

    def _point(self, point: PromisePoint) -> OperatingPoint:
        return OperatingPoint(
            leaf_threshold=point.leaf_threshold,
            parent_threshold=point.parent_threshold,
            cost_weight=self.cost_weight,
            scope_threshold=self.scope_threshold if point.scope_threshold is None else point.scope_threshold,
            max_error=point.max_error,
        )
