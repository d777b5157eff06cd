"""What calibration is fitted on. In: outputs of the exported graphs on labelled photos. Out: `Outputs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from cascade.arrays import Float64s, Ints

__all__ = ["Fold", "Outputs"]

#: Places that fit, places that are judged.
Fold = tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of the exported graphs on N labelled photos, every expert asked.

    Attributes:
        general: (N, L) logits.
        experts: expert -> (N, K + 1) logits.
        targets: (N,) index of the right label.
    """

    general: Float64s
    experts: Mapping[str, Float64s]
    targets: Ints

    def rows(self, index: npt.NDArray[Any]) -> Outputs:
        """Return a subset of the photos."""
        return Outputs(
            self.general[index], {k: v[index] for k, v in self.experts.items()}, self.targets[index]
        )
