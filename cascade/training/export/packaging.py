"""Writes the folder of a bundle: manifest, golden outputs and the decision in words.

Everything is written to a new folder beside the target, which then takes the target's place: a bundle is
there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from PIL import Image

from cascade.bundle.manifest import FORMAT_VERSION, MANIFEST, Bundle
from cascade.errors import OutputError
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.operating_point import choose_point
from cascade.inference.pipeline import Pipeline, StageOutputs
from cascade.ownership import check_bundle_target
from cascade.policy import decide

__all__ = ["golden_photos", "stage_entry", "take_place", "write_bundle", "write_golden", "write_policy"]

#: Sample photographs inside scikit-image whose licence allows everything (CC0 or public domain).
_GOLDEN: Final = ("coffee", "rocket", "chelsea", "astronaut")
_GOLDEN_SIDE: Final = 320
_DECISIONS: Final = 60
#: Steps of the dial, and one between two of them.
_BUDGETS: Final = (0.0, 0.33, 1.0)
#: The largest share of wrong answers that is tried; a promise made with few photos may be hardly smaller.
_LARGEST_ERROR: Final = 0.99


def stage_entry(model: onnx.ModelProto, name: str, folder: Path, **fields: Any) -> dict[str, Any]:
    """Write one graph into a bundle's folder and return its entry in bundle.json."""
    path = folder / f"{name}.onnx"
    content = model.SerializeToString(deterministic=True)
    path.write_bytes(content)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), **fields}


def write_bundle(
    folder: Path,
    *,
    name: str,
    version: str,
    labels: Mapping[str, str],
    stages: Mapping[str, Any],
    operating_points: Mapping[str, Any],
    guarantees: Mapping[str, Any],
    minimum_onnxruntime: str,
    provenance: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> Bundle:
    """Write bundle.json and read it back, which validates it.

    Args:
        folder: holds the graphs already.
        name: of the bundle.
        version: of the bundle.
        labels: label -> parent, in the order of the probabilities.
        stages: as in bundle.json.
        operating_points: as in bundle.json.
        guarantees: promise, budget, label_sets and reference, as in bundle.json.
        minimum_onnxruntime: oldest version that runs every graph.
        provenance: how it was made.
        measured: figures with the commands that print them.
    """
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "version": version,
        "minimum_onnxruntime": minimum_onnxruntime,
        "labels": [{"label": label, "parent": parent} for label, parent in labels.items()],
        "stages": stages,
        "operating_points": operating_points,
        **guarantees,
        "provenance": provenance,
        "measured": measured,
    }
    (folder / MANIFEST).write_text(_readable_json(manifest), encoding="utf-8")
    return Bundle.load(folder)


def _readable_json(data: Any) -> str:
    """Return indented JSON with every list of plain numbers on one line."""

    def one_line(found: re.Match[str]) -> str:
        return "[" + ", ".join(number.strip() for number in found[1].split(",")) + "]"

    return re.sub(r"\[([\s\d.,eE+-]+)\]", one_line, json.dumps(data, indent=2)) + "\n"


def golden_photos() -> dict[str, Image.Image]:
    """Return the photographs that golden files are made of, at most 320 px wide or high."""
    from skimage import data

    photos = {}
    for name in _GOLDEN:
        image = Image.fromarray(np.asarray(getattr(data, name)()))
        image.thumbnail((_GOLDEN_SIDE, _GOLDEN_SIDE), Image.Resampling.LANCZOS)
        photos[name] = image
    return photos


def write_golden(folder: Path, photos: Mapping[str, Image.Image]) -> None:
    """Write `golden/`: photos as PNG, and what every stage says of them, every expert asked.

    `golden.json` holds, per photo, the file, the prepared input (`<photo>.<W>x<H>.png`, lossless) and
    every output of every graph; per bundle, the tolerance within which another machine must agree.
    """
    home = folder / "golden"
    home.mkdir(exist_ok=True)
    bundle = Bundle.load(folder)
    exact, *others = (Pipeline.of(bundle.with_variant(name)) for name in bundle.variants)
    cost_weight = bundle.operating_points["default"].cost_weight
    entries = []
    for name, photo in photos.items():
        path = home / f"{name}.png"
        photo.save(path, optimize=True)
        inputs = exact.prepare([path]).inputs
        files = {spec: _prepared_name(name, spec, inputs) for spec in inputs}
        for spec, pixels in inputs.items():
            Image.fromarray(pixels[0]).save(home / files[spec], optimize=True)
        out = exact.run(inputs, ask="always")
        routed = exact.run(inputs, cost_weight=cost_weight)
        entries.append(
            {
                "photo": path.name,
                "prepared": {s.name: files[s.input] for s in (bundle.general, *bundle.experts) if s.input},
                "general_logits": _plain(out.general_logits[0]),
                "embedding": _plain(out.embedding[0]),
                "scope_score": None if out.scope_score is None else _plain(out.scope_score)[0],
                "expert_logits": {k: _plain(v[0]) for k, v in out.expert_logits.items()},
                "gain": _plain(routed.gain[0]),
                "asked_by_router": [bool(x) for x in routed.deferred[0]],
                "probabilities_never": _plain(out.general_probabilities[0]),
                "probabilities_router": _plain(routed.probabilities[0]),
                "probabilities_always": _plain(out.probabilities[0]),
                "variants": {
                    variant: _expected(other.run(inputs, ask="always"))
                    for variant, other in zip(bundle.variants[1:], others, strict=True)
                },
            }
        )
    golden = {"tolerance": {"logits": 0.02, "probabilities": 0.005, "pixels": 1}, "photos": entries}
    (home / "golden.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


def _prepared_name(photo: str, spec: InputSpec, specs: Iterable[InputSpec]) -> str:
    """Return the file of a prepared input; inputs of one size that differ otherwise are numbered."""
    name = f"{photo}.{spec.width}x{spec.height}.{spec.crop}"
    alike = [s for s in specs if (s.width, s.height, s.crop) == (spec.width, spec.height, spec.crop)]
    number = alike.index(spec)
    return f"{name}.{number + 1}.png" if number else f"{name}.png"


def _expected(out: StageOutputs) -> dict[str, Any]:
    """Return what another machine must find when it runs a variant; see `cascade.inference.golden_check`."""
    return {
        "general_logits": _plain(out.general_logits[0]),
        "expert_logits": {name: _plain(logits[0]) for name, logits in out.expert_logits.items()},
        "probabilities_always": _plain(out.probabilities[0]),
    }


def write_policy(folder: Path) -> None:
    """Write POLICY.md, the decision in 40 lines, and `golden/decisions.json` to check it against."""
    shutil.copyfile(Path(__file__).with_name("policy.md"), folder / "POLICY.md")
    bundle = Bundle.load(folder)
    rng = np.random.default_rng(0)
    # Every way of choosing an operating point: (max_error, budget).
    wanted: list[tuple[float | None, float | None]] = [(None, None)]
    if bundle.promise is not None:
        smallest = bundle.promise.smallest
        wanted += [(min(smallest + more, _LARGEST_ERROR), None) for more in (0.0, 0.05, 0.2)]
    for budget in _BUDGETS if bundle.budget is not None else ():
        wanted.append((None, budget))
        promise = choose_point(bundle, budget=budget).promise
        if promise is not None:
            wanted.append((min(promise.smallest + 0.05, _LARGEST_ERROR), budget))
    cases = []
    for number in range(_DECISIONS):
        share, dial = wanted[number % len(wanted)]
        max_error = None if share is None else round(share, 4)
        point = choose_point(bundle, max_error=max_error, budget=dial).point
        probabilities = rng.dirichlet(np.full(len(bundle.tree.labels), 10.0 ** rng.uniform(-2, 0)))
        if number % 10 == 0:  # exactly at the threshold
            probabilities[1:] *= (1 - point.leaf_threshold) / probabilities[1:].sum()
            probabilities[0] = point.leaf_threshold
        probabilities = np.round(probabilities, 6)
        limit = point.scope_threshold
        score = None if limit is None else round(limit + 0.1 * (number % 5 - 3) * abs(limit), 6)
        decision = decide(probabilities, bundle.tree, point, score)
        case: dict[str, Any] = {
            "max_error": max_error,
            "budget": dial,
            "probabilities": probabilities.tolist(),
            "score": score,
            "label": decision.label,
            "parent": decision.parent,
            "confidence": decision.confidence,
            "reason": decision.reason,
        }
        if bundle.label_sets is not None and dial is None:
            coverage = min((0.8, 0.9, 0.95)[number % 3], bundle.label_sets.largest)
            columns = bundle.label_sets.columns(probabilities, coverage)
            case["label_set"] = {
                "coverage": coverage,
                "labels": [bundle.tree.labels[column] for column in columns],
            }
        cases.append(case)
    path = folder / "golden" / "decisions.json"
    path.write_text(_readable_json({"cases": cases}), encoding="utf-8")


def _plain(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]


def take_place(new: Path, target: Path) -> None:
    """Put a finished bundle at its place; a bundle that is there makes way.

    Raises:
        OutputError: when the target holds something that belongs to no bundle; it is left alone.
    """
    try:
        check_bundle_target(target, replace=True)
    except OutputError as error:
        raise OutputError(f"{error} (the new bundle is at {new})") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        new.rename(target)
        return
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        old = target.rename(Path(aside) / target.name)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
