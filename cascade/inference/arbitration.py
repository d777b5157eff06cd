"""Prepares the inputs of `arbiter.onnx` from the logits of the models that were asked.

The graph itself is a weighted product of experts with temperatures ("logarithmic opinion pool", Genest and
Zidek 1986), fitted by `cascade.training.calibration.arbiter`. Rows of an expert that was not asked are zero
and have no influence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cascade.arrays import Bools, Float32s

__all__ = ["arbiter_feeds"]


def arbiter_feeds(
    general_logits: Float32s,
    expert_logits: Mapping[str, Float32s],
    deferred: Bools,
    experts: Mapping[str, int],
) -> dict[str, Float32s]:
    """Return the inputs of `arbiter.onnx` by name.

    Args:
        general_logits: (N, L).
        expert_logits: expert -> (n, K + 1), one row for each photo that it was asked about, in order.
        deferred: (N, E), in the order of ``experts``.
        experts: expert -> number of its logits, in the bundle's order.

    Returns:
        `general_logits` and, unless there are no experts at all, `<expert>_logits` (N, K + 1) each and
        `deferred` (N, E) float32.
    """
    count = len(general_logits)
    feeds = {"general_logits": general_logits}
    if experts:
        feeds["asked"] = deferred.astype(np.float32)
    for column, (name, width) in enumerate(experts.items()):
        full = np.zeros((count, width), dtype=np.float32)
        if name in expert_logits:
            full[deferred[:, column]] = expert_logits[name]
        feeds[f"{name}_logits"] = full
    return feeds
