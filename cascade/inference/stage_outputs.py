"""What passes between the stages. In: what `Cascade` puts in. Out: `PreparedPhotos`, `StageOutputs`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.errors import ImageError
from cascade.imaging.preprocessing import InputSpec

__all__ = ["FloatArray", "PreparedPhotos", "StageOutputs"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PreparedPhotos:
    """Photos that were decoded and made ready for every stage; what `Cascade.prepare_photos` returns.

    Attributes:
        inputs: input specification -> uint8 (N, H, W, 3), of the N photos that could be read; empty if none.
        positions: N ascending places among the photos that were given.
        read_ms: N pairs of milliseconds: decoding, preprocessing.
        warnings: N tuples of what was odd about a photo, see `Prediction`.
        failed: (place, error, milliseconds) of every other photo.
    """

    inputs: dict[InputSpec, npt.NDArray[np.uint8]]
    positions: tuple[int, ...]
    read_ms: tuple[tuple[float, float], ...]
    warnings: tuple[tuple[str, ...], ...]
    failed: tuple[tuple[int, ImageError, float], ...]


class StageOutputs:
    """What every stage said of N photos; what `Cascade.run_stages` returns.

    Attributes:
        general_logits: float32 (N, L).
        embedding: float32 (N, D), of the general model.
        gain: float32 (N, E), what the router expects of each expert.
        asked: bool (N, E).
        expert_logits: expert -> float32 (n, K + 1), rows only for the photos it was asked about.
        general_probabilities: float32 (N, L), calibrated, of the general model alone.
        probabilities: float32 (N, L), calibrated, of everybody who was asked.
        scope_score: float32 (N,), higher is stranger; None if the bundle has no scope stage.
        seconds: stage -> seconds that it took for all its photos.
    """

    __slots__ = (
        "asked",
        "embedding",
        "expert_logits",
        "gain",
        "general_logits",
        "general_probabilities",
        "probabilities",
        "scope_score",
        "seconds",
    )

    def __init__(self) -> None:
        self.general_logits: FloatArray
        self.embedding: FloatArray
        self.gain: FloatArray
        self.asked: npt.NDArray[np.bool_]
        self.expert_logits: dict[str, FloatArray] = {}
        self.general_probabilities: FloatArray
        self.probabilities: FloatArray
        self.scope_score: FloatArray | None = None
        self.seconds: dict[str, float] = {}
