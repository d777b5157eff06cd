"""Runs `cascade info`: shows the labels, stages, figures and origin of a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import FEATURES, ImageStage
from cascade.cli.options import bundle_option, command
from cascade.inference.variants import choose_variant
from cascade.runs.rows import bundle_hash

__all__ = ["info"]

#: Promises that are shown, besides the smallest.
_SHARES: Final = (0.05, 0.1, 0.15, 0.2, 0.3)


@command
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option("--check", is_flag=True, help="Also compare every graph with its SHA-256.")
def info(bundle: Path | None, as_json: bool, check: bool) -> None:
    """Show a bundle: labels, stages and sizes, measured figures, where it comes from."""
    loaded = Bundle.load(bundle)
    if check:
        for variant in loaded.variants:
            for stage in loaded.with_variant(variant).stages:
                loaded.check_hash(stage)
    if as_json:
        sizes = {stage.name: _size(loaded, stage.file) for stage in loaded.stages}
        document = loaded.to_dict() | {
            "folder": str(loaded.folder),
            "sha256": bundle_hash(loaded),
            "bytes": sizes,
            "variant": asdict(choose_variant(loaded)),
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(_lines(loaded)))
    if check:
        click.echo("every graph has the SHA-256 that bundle.json gives")


def _lines(bundle: Bundle) -> Iterator[str]:
    """Yield everything that is shown, with an empty line between its parts."""
    parts = (_origin, _labels, _stages, _operating_points, _promises, _budgets, _label_sets)
    for index, part in enumerate(parts):
        lines = list(part(bundle))
        if lines:
            yield from ["", *lines] if index else lines
    for title, document in (("measured", bundle.measured), ("provenance", bundle.provenance)):
        if document:
            yield ""
            yield title
            yield from _tree(document, "  ")


def _origin(bundle: Bundle) -> Iterator[str]:
    yield f"bundle   {bundle.name} {bundle.version}"
    yield f"folder   {bundle.folder}"
    yield f"sha256   {bundle_hash(bundle)} (bundle.json)"
    choice = choose_variant(bundle)
    yield f"variant  {choice.variant} of {', '.join(bundle.variants)} ({choice.why})"
    yield f"needs    onnxruntime {bundle.minimum_onnxruntime} or newer"


def _labels(bundle: Bundle) -> Iterator[str]:
    yield f"labels   {len(bundle.tree.labels)} in {len(bundle.tree.parents)} groups"
    width = max(len(parent) for parent in bundle.tree.parents)
    for parent in bundle.tree.parents:
        leaves = [label for label in bundle.tree.labels if bundle.tree.parent_of[label] == parent]
        yield f"  {parent:<{width}}  {', '.join(leaves)}"


def _stages(bundle: Bundle) -> Iterator[str]:
    yield "stages"
    width = max(len(stage.name) for stage in bundle.stages)
    total = 0
    for stage in bundle.stages:
        size = _size(bundle, stage.file)
        total += size
        text = f"  {stage.name:<{width}}  {size / 1e6:7.2f} MB"
        if isinstance(stage, ImageStage):
            text += f"  {stage.input.width} x {stage.input.height} px, {stage.input.crop}"
            text += f"; cost {stage.cost:g}; {len(stage.labels)} outputs"
            text += "; shares the general model's early features" if stage.takes == FEATURES else ""
        yield text
    yield f"  {'together':<{width}}  {total / 1e6:7.2f} MB"


def _operating_points(bundle: Bundle) -> Iterator[str]:
    yield "operating points"
    for name, point in bundle.operating_points.items():
        yield (
            f"  {name}: a label from {point.leaf_threshold:.3f}, a group from {point.parent_threshold:.3f}, "
            f"an expert when it gains {point.cost_weight:g} per unit of cost"
            + ("" if point.max_error is None else f"; at most {point.max_error:.1%} wrong")
        )


def _promises(bundle: Bundle) -> Iterator[str]:
    if bundle.promise is None:
        return
    yield (
        f"promises, with {bundle.promise.confidence:.0%} confidence, tested on {bundle.promise.photos} "
        "photos (--max-error)"
    )
    smallest = bundle.promise.smallest
    for share in (smallest, *(share for share in _SHARES if share > smallest)):
        point = bundle.promise.operating_point(share)
        yield (
            f"  at most {share:6.1%} wrong: a label from {point.leaf_threshold:.3f}, "
            f"a group from {point.parent_threshold:.3f}"
        )


def _budgets(bundle: Bundle) -> Iterator[str]:
    if bundle.budget is None:
        return
    yield f"budgets, on calibration photos (--budget); the default is {bundle.budget.default:g}"
    for step in bundle.budget.points:
        error = step.operating_point.max_error
        yield (
            f"  {step.budget:4.2f}: cost {step.mean_cost:.2f}, {step.accuracy:.1%} right, experts asked "
            f"about {step.deferral_rate:.0%}" + ("" if error is None else f"; at most {error:.1%} wrong")
        )


def _label_sets(bundle: Bundle) -> Iterator[str]:
    if bundle.label_sets is not None:
        yield f"label sets up to {bundle.label_sets.largest:.1%} (--label-set)"


def _tree(document: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}"
            yield from _tree(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
            yield f"{indent}{key}"
            for item in value:
                if isinstance(item, Mapping):
                    yield f"{indent}  - " + ", ".join(f"{k}: {_value(v)}" for k, v in item.items())
                else:
                    yield f"{indent}  - {_value(item)}"
        else:
            yield f"{indent}{key}: {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return str(value)


def _size(bundle: Bundle, file: str) -> int:
    path = bundle.folder / file
    return path.stat().st_size if path.is_file() else 0
