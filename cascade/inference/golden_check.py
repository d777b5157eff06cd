"""Checks that a bundle computes on this machine what it computed where it was made.

The photos of `golden/` are put through every image stage of a variant, and through the arbiter with every
expert asked, and compared with the outputs that the same variant gave when it was packed. Integer graphs are
the reason: on a processor without VNNI instructions their sums can saturate, and accuracy is lost silently.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from PIL import Image

from cascade.arrays import Floats, Pixels
from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import EXACT
from cascade.errors import BundleError
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.pipeline import Pipeline
from cascade.inference.session import GraphSession

__all__ = ["Checked", "verify"]

#: Probability that a variant may differ by from what it gave when it was packed. Kernels of other processors
#: round differently by one quantisation step here and there; saturation moves far more.
VARIANT_TOLERANCE: Final = 0.03
#: Runs of the general model that are timed; the fastest counts: whatever else the machine does only adds.
_TIMED: Final = 9


@dataclass(frozen=True, slots=True)
class Checked:
    """One variant on this machine.

    Attributes:
        variant: its name.
        photos: golden photos that were compared.
        difference: stage -> largest absolute difference of a logit (arbiter: of a probability) from what it
            gave when it was packed.
        from_exact: largest absolute difference of a probability from the exact graphs' golden outputs.
        flipped: photos whose most probable label is another one than when it was packed.
        general_ms: milliseconds of one thread for one photo in the general model; None if it was not timed.
        problems: why the variant must not be used here; empty if it may.
    """

    variant: str
    photos: int
    difference: Mapping[str, float]
    from_exact: float
    flipped: int
    general_ms: float | None
    problems: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.photos or not 0 <= self.flipped <= self.photos:
            raise ValueError(f"{self.flipped} of {self.photos} photos cannot have flipped")

    @property
    def usable(self) -> bool:
        """Whether the variant may be used on this machine."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "variant": self.variant,
            "usable": self.usable,
            "problems": list(self.problems),
            "photos": self.photos,
            "flipped": self.flipped,
            "difference": {stage: round(value, 6) for stage, value in self.difference.items()},
            "from_exact": round(self.from_exact, 6),
            "general_ms": None if self.general_ms is None else round(self.general_ms, 3),
        }


def verify(bundle: Bundle, *, timed: bool = False) -> tuple[Checked, ...]:
    """Check every variant of a bundle on this machine; the exact one comes first.

    Args:
        bundle: with golden outputs.
        timed: also measure how fast each variant is, in turns.

    Raises:
        BundleError: when the bundle has no golden outputs, or they do not fit to it.
    """
    path = bundle.folder / "golden" / "golden.json"
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        inputs = _inputs(bundle, golden)
        pipelines = {name: Pipeline.of(bundle.with_variant(name)) for name in bundle.variants}
        checked = [_check(pipeline, variant, golden, inputs) for variant, pipeline in pipelines.items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path}: the golden outputs cannot be used ({error!r}); copy the bundle again"
        ) from error
    if timed:
        sessions = [
            pipeline.session(bundle.with_variant(variant).general) for variant, pipeline in pipelines.items()
        ]
        times = _milliseconds(sessions, inputs[bundle.general.input][:2])
        checked = [replace(one, general_ms=ms) for one, ms in zip(checked, times, strict=True)]
    return tuple(checked)


def _inputs(bundle: Bundle, golden: Mapping[str, Any]) -> dict[InputSpec, Pixels]:
    inputs = {}
    for stage in bundle.image_stages:
        pixels = []
        for entry in golden["photos"]:
            with Image.open(bundle.folder / "golden" / entry["prepared"][stage.name]) as image:
                pixels.append(np.asarray(image.convert("RGB")))
        inputs[stage.input] = np.stack(pixels)
    return inputs


def _check(
    pipeline: Pipeline, variant: str, golden: Mapping[str, Any], inputs: dict[InputSpec, Pixels]
) -> Checked:
    exact = golden["photos"]
    expected = exact if variant == EXACT else [entry["variants"][variant] for entry in exact]
    out = pipeline.run(inputs, ask="always")
    difference = {"general": _distance(out.general_logits, [e["general_logits"] for e in expected])}
    for name, logits in out.expert_logits.items():
        difference[name] = _distance(logits, [e["expert_logits"][name] for e in expected])
    wanted = np.array([e["probabilities_always"] for e in expected])
    difference["arbiter"] = _distance(out.probabilities, wanted)
    tolerance = golden["tolerance"]["probabilities"] if variant == EXACT else VARIANT_TOLERANCE
    # Labels that were within the tolerance of each other when it was packed may change places.
    best_two = np.sort(wanted, axis=1)[:, -2:]
    clear = best_two[:, 1] - best_two[:, 0] > tolerance
    flipped = int((clear & (out.probabilities.argmax(1) != wanted.argmax(1))).sum())
    problems = []
    if flipped:
        problems.append(f"{flipped} of {len(exact)} photos get another label than when the bundle was made")
    if not difference["arbiter"] <= tolerance:  # also true for nan
        problems.append(f"a probability differs by {difference['arbiter']:.3f}, more than {tolerance:g}")
    limit = golden["tolerance"]["logits"]
    worst = max(value for stage, value in difference.items() if stage != "arbiter")
    if variant == EXACT and not worst <= limit:
        problems.append(f"a logit differs by {worst:.3f}, more than {limit:g}")
    return Checked(
        variant=variant,
        photos=len(exact),
        difference=difference,
        from_exact=_distance(out.probabilities, [e["probabilities_always"] for e in exact]),
        flipped=flipped,
        general_ms=None,
        problems=tuple(problems),
    )


def _milliseconds(sessions: Sequence[GraphSession], photos: Pixels) -> list[float]:
    """Return the milliseconds per photo of each session, the fastest of several runs in turns."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for _ in range(_TIMED):
        for session, found in zip(sessions, seconds, strict=True):
            started = time.perf_counter()
            session.run_photos(photos)
            found.append(time.perf_counter() - started)
    return [min(found) * 1e3 / len(photos) for found in seconds]


def _distance(one: Floats, other: Any) -> float:
    expected = np.asarray(other, dtype=np.float64)
    if one.shape != expected.shape:
        raise ValueError(f"the golden outputs have the shape {expected.shape}, the graph gives {one.shape}")
    return float(np.abs(one - expected).max())
