"""Calibration. In: what the exported graphs say of the calibration photos. Out: arbiter and router, and what
they say of photos that had no part in them.

The split `calibration` is cut in two, stratified by label:

    fit part (2/3)  temperatures and weights of the arbiter, then the router; figures about them are
                    cross-fitted: every photo is judged by numbers that it had no part in
    held out (1/3)  nothing here; `cascade.training.guarantees` builds every promise on it

The split `test` is never seen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

from cascade.labels import LabelTree
from cascade.training.arbiter_fit import arbitrate, cross_fit, fit_arbiter
from cascade.training.calibration_data import BoolArray, FloatArray, Outputs
from cascade.training.graphs import ArbiterParameters, RouterParameters
from cascade.training.router_fit import expected_gain, fit_router

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that was fitted.

    Attributes:
        arbiter: numbers of `arbiter.onnx`.
        router: numbers of `router.onnx`; None without experts.
        cost_weight: gain that one unit of cost must bring for an expert to be asked.
        fit_rows: places of the F photos that fitted arbiter and router.
        held_out_rows: places of the other H photos.
        fit_probabilities: (F, L), cross-fitted, experts asked by the router.
        held_out_probabilities: (H, L), of the finished arbiter, experts asked by the router.
        held_out_asked: (H, E).
        facts: how it was chosen, for metrics.json and the card.
    """

    arbiter: ArbiterParameters
    router: RouterParameters | None
    cost_weight: float
    fit_rows: npt.NDArray[np.int64]
    held_out_rows: npt.NDArray[np.int64]
    fit_probabilities: FloatArray
    held_out_probabilities: FloatArray
    held_out_asked: BoolArray
    facts: dict[str, Any]


def calibrate(
    outputs: Outputs,
    tree: LabelTree,
    experts: Mapping[str, Sequence[str]],
    costs: Sequence[float],
    *,
    seed: int,
) -> Calibration:
    """Fit arbiter and router.

    Args:
        outputs: on the calibration photos.
        tree: the bundle's labels.
        experts: expert -> its labels, without "not mine".
        costs: of every expert, in units of one run of the general model.
        seed: of the partitions.
    """
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    fit_rows, held_out_rows = next(iter(folds.split(outputs.general, outputs.targets)))
    fit_part, held_out = outputs.rows(fit_rows), outputs.rows(held_out_rows)
    arbiter = fit_arbiter(fit_part, tree, experts)
    facts: dict[str, Any] = {
        "fit_photos": len(fit_rows),
        "held_out_photos": len(held_out_rows),
        "arbiter": arbiter.to_dict(),
    }
    router, cost_weight = None, 0.0
    asked = np.zeros((len(held_out_rows), len(experts)), dtype=np.bool_)
    if experts:
        router, cost_weight, fit_probabilities, facts["router"] = fit_router(
            fit_part, tree, experts, np.asarray(costs), arbiter.temperature, seed
        )
        gain = expected_gain(router, held_out, tree, experts)
        asked = gain > cost_weight * np.asarray(costs)
    else:
        _, answers = cross_fit(fit_part, tree, experts, seed)
        fit_probabilities = answers(np.zeros((len(fit_rows), 0), dtype=np.bool_))
    return Calibration(
        arbiter=arbiter,
        router=router,
        cost_weight=cost_weight,
        fit_rows=fit_rows,
        held_out_rows=held_out_rows,
        fit_probabilities=fit_probabilities,
        held_out_probabilities=arbitrate(arbiter, held_out, tree, experts, asked),
        held_out_asked=asked,
        facts=facts,
    )
