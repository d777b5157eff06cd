"""What calibration is fitted on. In: outputs of the exported graphs on labelled photos. Out: `Outputs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "FloatArray", "Fold", "Outputs", "softmax"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
#: Places that fit, places that are judged.
Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of the exported graphs on N labelled photos, every expert asked.

    Attributes:
        general: (N, L) logits.
        experts: expert -> (N, K + 1) logits.
        targets: (N,) index of the right label.
    """

    general: FloatArray
    experts: Mapping[str, FloatArray]
    targets: npt.NDArray[np.int64]

    def rows(self, index: npt.NDArray[Any]) -> Outputs:
        """Return a subset of the photos."""
        return Outputs(
            self.general[index], {k: v[index] for k, v in self.experts.items()}, self.targets[index]
        )


def softmax(x: FloatArray) -> FloatArray:
    """Return probabilities, rows summing to one, of logits of shape (N, K)."""
    exponent = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(exponent / exponent.sum(1, keepdims=True))
