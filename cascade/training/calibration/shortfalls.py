"""Says in words what a bundle cannot promise because too few photos calibrated or tested it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from cascade.guarantees.drift import FEWEST_PHOTOS
from cascade.labels import LabelTree
from cascade.training.calibration.guarantees import Guarantees
from cascade.training.calibration.out_of_distribution import FEWEST_KNOWN
from cascade.training.calibration.risk_control import LEVEL

__all__ = ["shortfalls"]

#: A label set of this coverage is what people ask for.
_COVERAGE: Final = 0.95
#: Below this many photos a figure is little more than chance.
_FEW: Final = 30


def shortfalls(
    guarantees: Guarantees,
    calibration_labels: Sequence[str],
    tree: LabelTree,
    *,
    max_error: float,
    fit_photos: int,
    test_photos: int,
) -> list[str]:
    """Return one sentence for everything that is out of reach; empty if nothing is.

    Args:
        guarantees: of the bundle.
        calibration_labels: label of every photo of the split `calibration`.
        tree: the bundle's labels.
        max_error: share of wrong answers that was asked for.
        fit_photos: calibration photos that fitted something; the others tested promises.
        test_photos: photos of the split `test`.
    """
    held_out = guarantees.reference.photos
    sentences = [*_promise(guarantees, max_error, held_out), *_label_sets(guarantees, held_out)]
    if guarantees.scope is None:
        sentences.append(
            'Photos unlike everything known are not recognised as such, and so not "unknown": this takes '
            f"{FEWEST_KNOWN} photos that fit, and there are {fit_photos}."
        )
    if fit_photos < _FEW:
        sentences.append(
            f"Confidences are hardly calibrated, for {fit_photos} photos fitted them: take them for an "
            "order, not for probabilities."
        )
    absent = sorted(set(tree.labels) - set(calibration_labels))
    if absent:
        sentences.append(
            f"No calibration photo shows {', '.join(absent)}: how sure it is of them was not looked at."
        )
    if held_out < FEWEST_PHOTOS:
        sentences.append(
            f"`cascade evaluate --drift` compares with {held_out} photos and will notice little."
        )
    if not test_photos:
        sentences.append("Nothing was measured: there are no test photos.")
    elif test_photos < _FEW:
        sentences.append(f"What is measured is measured on {test_photos} test photos; look at the intervals.")
    return sentences


def _promise(guarantees: Guarantees, max_error: float, held_out: int) -> list[str]:
    promise = guarantees.promise
    if promise is not None and promise.smallest <= max_error:
        return []
    # The exact binomial test without a wrong answer: (1 - max_error) ** n <= level.
    needed = math.ceil(math.log(LEVEL) / math.log(1 - max_error))
    reach = (
        "No share of wrong answers can be promised"
        if promise is None
        else f"The smallest share of wrong answers that can be promised is {promise.smallest:.1%}"
    )
    why = (
        f"{max_error:g} takes at least {needed} photos that were held out, all answered rightly, and there "
        f"are {held_out}"
        if held_out < needed
        else f"of the {held_out} photos that were held out, too many are answered wrongly for {max_error:g}"
    )
    return [f"{reach}: {why}."]


def _label_sets(guarantees: Guarantees, held_out: int) -> list[str]:
    largest = guarantees.label_sets.largest if guarantees.label_sets else 0.0
    if largest >= _COVERAGE:
        return []
    # The conformal quantile: ceil((n + 1) * coverage) <= n.
    needed = math.ceil(_COVERAGE / (1 - _COVERAGE) - 1e-9)
    reach = f"Label sets go up to a coverage of {largest:g}" if largest else "There are no label sets"
    return [f"{reach}: {_COVERAGE:g} takes {needed} photos that were held out, and there are {held_out}."]
