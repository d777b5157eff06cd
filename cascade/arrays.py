"""Names of the array types that modules hand to each other, and the softmax that they share."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Float32s", "Float64s", "Floats", "Ints", "Pixels", "softmax"]

#: Any floating type; what pure functions accept.
Floats = npt.NDArray[np.floating[Any]]
#: What graphs take and give.
Float32s = npt.NDArray[np.float32]
#: What statistics compute in.
Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
#: Prepared photos, RGB, of shape (N, H, W, 3) or (H, W, 3).
Pixels = npt.NDArray[np.uint8]

_Float = TypeVar("_Float", bound=np.floating[Any])


def softmax(logits: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """Return probabilities, summing to one along the last axis, of logits of shape (..., K)."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[_Float] = odds / odds.sum(axis=-1, keepdims=True)
    return result
