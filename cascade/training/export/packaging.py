"""Writes parts of a bundle, a graph and the decision in words, and puts its finished folder at its place.

Everything is written to a new folder beside the target, which then takes the target's place: a bundle is
there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from cascade.bundle.manifest import Bundle
from cascade.errors import OutputError
from cascade.inference.operating_point import choose_point
from cascade.ownership import check_bundle_target
from cascade.policy import decide
from cascade.training.export.readable_json import readable_json

__all__ = ["stage_entry", "take_place", "write_policy"]

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
    path.write_text(readable_json({"cases": cases}), encoding="utf-8")


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
