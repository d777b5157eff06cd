"""Holds the results of an evaluation and computes its metrics.

Three systems are compared: the general model alone, the cascade, and all experts always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cascade.arrays import Bools, Float32s, Float64s, Ints
from cascade.bundle.manifest import Bundle
from cascade.evaluation import calibration_metrics as reliability
from cascade.evaluation import metrics
from cascade.evaluation.dataset import Photo
from cascade.evaluation.metrics import Interval, PairedDifference
from cascade.imaging.files import readable
from cascade.policy import Decision, OperatingPoint, decide
from cascade.prediction import ErrorInfo

__all__ = ["SYSTEMS", "CurvePoint", "Evaluation", "SystemMetrics", "cost_per_photo"]

#: The systems that are compared, and their names for people.
SYSTEMS: Final[dict[str, str]] = {
    "general": "general alone",
    "cascade": "cascade",
    "always": "all experts always",
}


@dataclass(frozen=True, slots=True)
class SystemMetrics:
    """The metrics of one system; shares are 0..1, intervals at 95 %.

    Attributes:
        n: photos.
        accuracy: share of photos whose most probable leaf is the true one; interval by Wilson's method.
        group_accuracy: the same for the most probable parent, leaf probabilities summed.
        nll: negative log likelihood, nats per photo.
        brier: squared error summed over labels, 0..2.
        ece: calibration error, 15 bins of equal mass.
        ece_floor: what a perfectly calibrated model would show by chance on so many photos.
        smooth_ece: calibration error without bins.
        augrc: area under the generalized risk-coverage curve.
        cost: mean per photo, in units of one run of the general model.
        deferral_rate: share of photos for which at least one expert was asked.
    """

    n: int
    accuracy: float
    accuracy_interval: Interval
    group_accuracy: float
    group_accuracy_interval: Interval
    nll: float
    brier: float
    ece: float
    ece_floor: float
    smooth_ece: float
    augrc: float
    cost: float
    deferral_rate: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Cost and accuracy of the cascade at another price for asking experts.

    Attributes:
        cost_weight: gain that one unit of cost must bring.
        cost: mean per photo, in units of one run of the general model.
        deferral_rate: share of photos for which at least one expert was asked.
        accuracy: over leaves.
        budget: step of the bundle's dial, see `cascade.guarantees.budget`; None if the bundle has no dial.
    """

    cost_weight: float
    cost: float
    deferral_rate: float
    accuracy: float
    budget: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What every stage answered for N labelled photos, in the order of ``photos``.

    Attributes:
        bundle: what was evaluated.
        point: the operating point that decided which experts to ask.
        photos: those that could be read.
        failed: those that could not, and why.
        dropped: (path, reason) of files that were not used, see `cascade.evaluation.dataset.Dataset`.
        sizes: (N, 2), width and height in pixels, upright.
        truth: (N,), column of the true label.
        gain: (N, E), the gain that the router expected from each expert.
        expert_logits: expert -> (N, K + 1), of every photo, whether the router asked or not.
        deferred: system -> (N, E), which experts each photo went to.
        probabilities: system -> (N, L).
        without: expert -> (N, L), of the cascade as if this one expert had not been asked.
        curve: cost against accuracy, from asking no expert to asking wherever it may help.
        scope_score: (N,), higher is stranger; None if the bundle has no scope stage.

    Raises:
        ValueError: when there is no photo, or shapes contradict each other.
    """

    bundle: Bundle
    point: OperatingPoint
    photos: tuple[Photo, ...]
    failed: tuple[tuple[Photo, ErrorInfo], ...]
    dropped: tuple[tuple[Path, str], ...]
    sizes: Ints
    truth: Ints
    gain: Float32s
    expert_logits: Mapping[str, Float32s]
    deferred: Mapping[str, Bools]
    probabilities: Mapping[str, Float32s]
    without: Mapping[str, Float32s]
    curve: tuple[CurvePoint, ...]
    scope_score: Float32s | None = None

    def __post_init__(self) -> None:
        n, leaves, experts = len(self.photos), len(self.bundle.tree.labels), len(self.bundle.experts)
        if not n:
            raise ValueError("an evaluation needs at least one photo")
        expected: list[tuple[str, npt.NDArray[Any], tuple[int, ...]]] = [
            ("sizes", self.sizes, (n, 2)),
            ("truth", self.truth, (n,)),
            ("gain", self.gain, (n, experts)),
            *(("deferred", self.deferred[system], (n, experts)) for system in SYSTEMS),
            *(("probabilities", self.probabilities[system], (n, leaves)) for system in SYSTEMS),
        ]
        for name, array, shape in expected:
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, not {shape}")

    def predicted(self, system: str = "cascade") -> Ints:
        """Return the most probable leaf of every photo, (N,)."""
        return np.asarray(self.probabilities[system].argmax(axis=1))

    def confidence(self, system: str = "cascade") -> Float32s:
        """Return the probability of the most probable leaf, (N,)."""
        return np.asarray(self.probabilities[system].max(axis=1))

    def right(self, system: str = "cascade") -> Bools:
        """Return whether the most probable leaf is the true one, (N,)."""
        return np.asarray(self.predicted(system) == self.truth)

    def group_right(self, system: str = "cascade") -> Bools:
        """Return whether the most probable parent is that of the true leaf, (N,)."""
        tree = self.bundle.tree
        groups = tree.parent_probabilities(self.probabilities[system]).argmax(axis=1)
        return np.asarray(groups == tree.membership.argmax(axis=1)[self.truth])

    def cost(self, system: str = "cascade") -> Float64s:
        """Return the cost of every photo in units of one run of the general model, (N,)."""
        return cost_per_photo(self.bundle, self.deferred[system])

    def measure(self, system: str = "cascade") -> SystemMetrics:
        """Return the metrics of one system."""
        probabilities, right, confidence = (
            self.probabilities[system],
            self.right(system),
            self.confidence(system),
        )
        group_right, n = self.group_right(system), len(self.photos)
        return SystemMetrics(
            n=n,
            accuracy=float(right.mean()),
            accuracy_interval=metrics.wilson_interval(int(right.sum()), n),
            group_accuracy=float(group_right.mean()),
            group_accuracy_interval=metrics.wilson_interval(int(group_right.sum()), n),
            nll=metrics.negative_log_likelihood(probabilities, self.truth),
            brier=metrics.brier_score(probabilities, self.truth),
            ece=reliability.expected_calibration_error(confidence, right),
            ece_floor=reliability.expected_calibration_error_floor(confidence),
            smooth_ece=reliability.smooth_calibration_error(confidence, right),
            augrc=reliability.augrc(confidence, right),
            cost=float(self.cost(system).mean()),
            deferral_rate=float(self.deferred[system].any(axis=1).mean()),
        )

    def decision(self, place: int) -> Decision:
        """Return what the policy answers for one photo, as `Cascade.predict` does."""
        score = None if self.scope_score is None else float(self.scope_score[place])
        return decide(self.probabilities["cascade"][place], self.bundle.tree, self.point, score)

    def difference(self, before: str = "general", after: str = "cascade") -> PairedDifference:
        """Return how much more often ``after`` is right than ``before``."""
        return metrics.paired_difference(self.right(before), self.right(after))

    def contribution(self, expert: str) -> PairedDifference:
        """Return how much more often the cascade is right than if this one expert had not been asked."""
        return metrics.paired_difference(self.without[expert].argmax(axis=1) == self.truth, self.right())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the metrics, not the photos."""
        return {
            "bundle": {"name": self.bundle.name, "version": self.bundle.version},
            "operating_point": self.point.to_dict(),
            "photos": len(self.photos),
            "failed": [
                {"path": readable(str(photo.path)), "code": why.code, "reason": why.message}
                for photo, why in self.failed
            ],
            "dropped": [{"path": readable(str(path)), "reason": reason} for path, reason in self.dropped],
            "ways": {system: asdict(self.measure(system)) for system in SYSTEMS},
            "cascade_minus_general": asdict(self.difference("general", "cascade")),
            "cascade_minus_always": asdict(self.difference("always", "cascade")),
            "without": {name: asdict(self.contribution(name)) for name in self.without},
            "curve": [asdict(point) for point in self.curve],
        }


def cost_per_photo(bundle: Bundle, deferred: Bools) -> Float64s:
    """Return the cost of every photo, (N,), in units of one run of the general model.

    Args:
        bundle: gives the cost of every stage.
        deferred: (N, E), which experts each photo went to.
    """
    costs = np.array([expert.cost for expert in bundle.experts], dtype=np.float64)
    return bundle.general.cost + deferred.astype(np.float64) @ costs
