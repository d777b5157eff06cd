"""Replays the golden decisions of a bundle: from prepared pixels, for every variant, and from the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from cascade.arrays import Pixels
from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import EXACT
from cascade.errors import BundleError
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.golden_check import VARIANT_TOLERANCE
from cascade.inference.pipeline import Pipeline, StageOutputs
from cascade.inference.routing import ASK_MODES
from cascade.policy import decide

__all__ = ["replay"]


def replay(bundle: Bundle) -> tuple[str, ...]:
    """Return the differences from when the bundle was packed, in words; empty if there are none.

    Bundles that were packed before decisions were stored have nothing to replay.

    Raises:
        BundleError: when the golden files cannot be used.
    """
    home = bundle.folder / "golden"
    try:
        golden = json.loads((home / "golden.json").read_text(encoding="utf-8"))
        photos = [entry for entry in golden["photos"] if "decisions" in entry]
        return tuple(_problems(bundle, photos, golden["tolerance"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{home}: the golden files cannot be used ({error!r}); copy the bundle again"
        ) from error


def _problems(
    bundle: Bundle, photos: list[Mapping[str, Any]], tolerance: Mapping[str, float]
) -> Iterator[str]:
    pipelines = {name: Pipeline.of(bundle.with_variant(name)) for name in bundle.variants}
    for entry in photos:
        name, pixels = entry["photo"], _prepared(bundle, entry)
        for variant, pipeline in pipelines.items():
            expected = entry if variant == EXACT else entry["variants"][variant]
            allowed = tolerance["probabilities"] if variant == EXACT else VARIANT_TOLERANCE
            for problem in _differences(bundle, pipeline, pixels, expected, allowed):
                yield f"{name}, {variant}, from prepared pixels: {problem}"
        read = pipelines[EXACT].prepare([bundle.folder / "golden" / name])
        if read.failed:
            yield f"{name}: cannot be read: {read.failed[0][1].message}"
            continue
        away = max(float(np.abs(read.inputs[s].astype(np.int16) - pixels[s]).mean()) for s in pixels)
        if away > tolerance["file_pixels_mean"]:
            yield f"{name}, from its file: prepared pixels differ by {away:.1f} grey levels on average"
        allowed = tolerance["file_probabilities"]
        for problem in _differences(bundle, pipelines[EXACT], read.inputs, entry, allowed):
            yield f"{name}, from its file: {problem}"


def _prepared(bundle: Bundle, entry: Mapping[str, Any]) -> dict[InputSpec, Pixels]:
    pixels = {}
    for stage in bundle.image_stages:
        with Image.open(bundle.folder / "golden" / entry["prepared"][stage.name]) as image:
            pixels[stage.input] = np.asarray(image.convert("RGB"))[None]
    return pixels


def _differences(
    bundle: Bundle,
    pipeline: Pipeline,
    pixels: Mapping[InputSpec, Pixels],
    expected: Mapping[str, Any],
    allowed: float,
) -> Iterator[str]:
    point = bundle.operating_points["default"]
    for ask in ASK_MODES:
        wanted = expected["decisions"][ask]
        if ask == "router" and wanted["margin"] <= allowed:
            continue  # an expert more or less may be asked, which moves probabilities by more than rounding
        out = pipeline.run(pixels, ask=ask, cost_weight=point.cost_weight)
        away = float(np.abs(out.probabilities[0] - np.array(expected[f"probabilities_{ask}"])).max())
        if not away <= allowed:
            yield f"with {ask!r} a probability differs by {away:.3f}, more than {allowed:g}"
        decision = decide(out.probabilities[0], bundle.tree, point, _score(out))
        same = (decision.label, decision.reason) == (wanted["label"], wanted["reason"])
        if not same and wanted["margin"] > allowed:
            yield (
                f"with {ask!r} the answer is {decision.label} ({decision.reason}), "
                f"not {wanted['label']} ({wanted['reason']})"
            )


def _score(out: StageOutputs) -> float | None:
    return None if out.scope_score is None else float(out.scope_score[0])
