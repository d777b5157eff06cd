"""Measures a finished bundle and writes the figures into its manifest, with the command that prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade.bundle.manifest import MANIFEST
from cascade.bundle.stage import EXACT
from cascade.classifier import Cascade
from cascade.evaluation.dataset import Photo
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.results import SYSTEMS
from cascade.evaluation.sources import accuracy_by_source

__all__ = ["measure"]


def measure(
    folder: Path, photos: Sequence[Photo], split: str, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Evaluate a bundle and write what was found into its manifest.

    Args:
        folder: of the bundle.
        photos: of a split that nothing was fitted on.
        split: its name.
        progress: called with (done, total).
    """
    evaluation = evaluate(Cascade(folder, variant=EXACT), photos, progress=progress)
    measured = {
        "command": f"cascade evaluate DATA --split {split} --variant exact",
        "split": split,
        "photos": len(evaluation.photos),
        "ways": {
            system: {"name": name, **_rounded(asdict(evaluation.measure(system)))}
            for system, name in SYSTEMS.items()
        },
        "cascade_minus_general": _rounded(asdict(evaluation.difference("general", "cascade"))),
        "cascade_minus_always": _rounded(asdict(evaluation.difference("always", "cascade"))),
    }
    by_source = accuracy_by_source(evaluation)
    if by_source is not None:
        rows = [_rounded(row) for row in by_source.to_dict()["sources"]]
        measured["by_source"] = _rounded(by_source.to_dict()) | {"sources": rows}
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"measured": measured}
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return measured


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Five digits: below what chance does to any of these figures."""
    return {key: _round(value) for key, value in values.items()}


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, list | tuple):
        return [_round(each) for each in value]
    return value
