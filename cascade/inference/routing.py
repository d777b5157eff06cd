"""Decides which experts are asked about a photo.

`router.onnx` estimates from the general model's logits what asking expert e would add: log P(right label)
with its answer minus without. Here that gain is compared with the expert's cost. The confidence of the
general model alone is not enough when the models that follow are specialists: Jitkrittum et al. 2023, arXiv
2307.02764.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cascade.arrays import Bools, Floats
from cascade.errors import UsageError

__all__ = ["ASK_MODES", "choose_experts"]

#: ``router``: ask where it pays; ``never``: general model alone; ``always``: every expert, every photo.
ASK_MODES: Final = ("router", "never", "always")


def choose_experts(
    gain: Floats,
    cost: Floats,
    cost_weight: float,
    mode: str = "router",
) -> Bools:
    """Return which experts are asked, bool of shape (N, E).

    Args:
        gain: (N, E), expected increase of log P(right label), nats.
        cost: (E,), in units of one run of the general model.
        cost_weight: gain that one unit of cost must bring.
        mode: one of `ASK_MODES`.

    Raises:
        UsageError: for an unknown mode.
    """
    if mode == "never":
        return np.zeros(gain.shape, dtype=np.bool_)
    if mode == "always":
        return np.ones(gain.shape, dtype=np.bool_)
    if mode != "router":
        raise UsageError(f"unknown mode {mode!r}; choose one of {', '.join(ASK_MODES)}")
    return np.asarray(gain > cost_weight * cost, dtype=np.bool_)
