"""Holds the data of calibration: the logits of every image stage for labelled photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.arrays import Float64s, Floats, Ints
from cascade.training.calibration.sources import source_weights

__all__ = ["Fold", "StageLogits", "places_of"]

#: Places of the photos that fit, and of those that are scored.
Fold = tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class StageLogits:
    """Outputs of the exported graphs on N labelled photos, every expert asked.

    Attributes:
        general: (N, L) logits.
        experts: expert -> (N, K + 1) logits.
        targets: (N,) index of the right label.
        sources: of the N photos; empty if nothing is known about them.
    """

    general: Floats
    experts: Mapping[str, Floats]
    targets: Ints
    sources: tuple[str, ...] = ()

    @property
    def weights(self) -> Float64s:
        """What each photo counts, (N,), see `cascade.training.calibration.sources.source_weights`."""
        return source_weights(self.sources) if self.sources else np.ones(len(self.targets))

    def rows(self, index: npt.NDArray[Any]) -> StageLogits:
        """Return a subset of the photos."""
        return StageLogits(
            self.general[index],
            {k: v[index] for k, v in self.experts.items()},
            self.targets[index],
            tuple(self.sources[place] for place in places_of(index)) if self.sources else (),
        )


def places_of(index: npt.NDArray[Any]) -> list[int]:
    """Return the places that an index, of places or of booleans, chooses."""
    places = np.flatnonzero(index) if index.dtype == np.bool_ else index
    return [int(place) for place in places]
