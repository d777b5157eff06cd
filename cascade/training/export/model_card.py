"""Writes the model card of a bundle as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import ImageStage

__all__ = ["model_card"]


def model_card(bundle: Bundle, metrics: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """Return the README.md of a bundle.

    Args:
        bundle: with its measured figures, if it has been measured.
        metrics: the content of metrics.json.
        words: the section ``[card]`` of the general recipe.
    """
    lines = [f"# Bundle `{bundle.name}` {bundle.version}", ""]
    groups: dict[str, list[str]] = {}
    for label in bundle.tree.labels:
        groups.setdefault(bundle.tree.parent_of[label], []).append(label)
    lines += ["## Labels", ""]
    lines += [f"- **{parent}**: {', '.join(leaves)}" for parent, leaves in groups.items()]
    lines += ["", "## Stages", "", "| stage | MB | input | labels | cost |", "|---|---|---|---|---|"]
    for stage in bundle.stages:
        size = (bundle.folder / stage.file).stat().st_size / 1e6
        cost, spec = "negligible", ""  # small graphs of numbers; nobody counted them
        if isinstance(stage, ImageStage):
            cost, spec = f"{stage.cost:g}", f"{stage.input.width} x {stage.input.height}"
        lines.append(f"| {stage.name} | {size:.1f} | {spec} | {len(stage.labels)} | {cost} |")
    lines += ["", "Cost is in units of one run of the general model (floating-point operations).", ""]
    lines += _measured(bundle) + _calibration(metrics)
    for title, key in (("Training data", "data"), ("Licence", "licence"), ("Limits", "limits")):
        if words.get(key):
            lines += [f"## {title}", "", words[key].strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _measured(bundle: Bundle) -> list[str]:
    measured = bundle.measured
    if not measured:
        return []
    lines = [
        "## Measured",
        "",
        f"On {measured['photos']} photos of the split `{measured['split']}`, exported graphs; printed "
        f"by `{measured['command']}`.",
        "",
        "| | top-1 | 95 % interval | groups | NLL | Brier | ECE | mean cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in measured["ways"].values():
        low, high = row["accuracy_interval"]
        lines.append(
            f"| {row['name']} | {row['accuracy']:.1%} | {low:.1%} to {high:.1%} | "
            f"{row['group_accuracy']:.1%} | {row['nll']:.3f} | {row['brier']:.3f} | {row['ece']:.1%} | "
            f"{row['cost']:.2f} |"
        )
    floor = max(row["ece_floor"] for row in measured["ways"].values())
    lines += [
        "",
        "ECE is that of 15 bins of equal mass; on so few photos a perfectly calibrated model shows "
        f"{floor:.1%} by chance.",
        "",
        *_by_source(measured.get("by_source")),
    ]
    return lines


def _by_source(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = ["| source | photos | top-1 (95 %) | general alone |", "|---|---|---|---|"]
    for row in found["sources"]:
        low, high = row["interval"]
        worst = " (worst)" if row["source"] == found["worst"] else ""
        lines.append(
            f"| {row['source']}{worst} | {row['photos']} | {row['accuracy']:.1%} ({low:.1%} to {high:.1%}) | "
            f"{row['general_accuracy']:.1%} |"
        )
    return [*lines, "", f"Mean over sources: {found['mean']:.1%}.", ""]


def _calibration(metrics: Mapping[str, Any]) -> list[str]:
    calibration = metrics["calibration"]
    promise = calibration["promise"]
    if promise["max_error"] is None:
        kept = "By default nothing is promised about the share of wrong answers; there were too few photos"
    else:
        kept = (
            f"By default at most {promise['max_error']:.1%} of the answers are wrong, with 95 % confidence; "
            f"the smallest share that can be promised is {promise['smallest']:.1%}"
        )
    lines = [
        "## Calibration",
        "",
        f"Arbiter and router were fitted on {calibration['fit_photos']} calibration photos, promises were "
        f"tested on {calibration['held_out_photos']} others. {kept}. Of those photos "
        f"{promise['answered_leaf']:.0%} got a label, {promise['answered_parent']:.0%} a broader label, "
        f'{promise["unknown"]:.0%} "unknown". POLICY.md says how an answer is made and what is promised.',
        "",
    ]
    if strangers := calibration.get("strangers"):
        lines += [
            f"Of {strangers['photos']} photos that are none of the labels and taught it nothing, "
            f"{strangers['answered']:.0%} are answered by default"
            + (
                f", {strangers['answered_at_smallest']:.0%} where the smallest share is promised."
                if "answered_at_smallest" in strangers
                else "."
            ),
            "",
        ]
    if calibration.get("shortfalls"):
        lines += ["## What it cannot promise", "", *(f"- {each}" for each in calibration["shortfalls"]), ""]
    router = calibration.get("router")
    return lines + (_router(router) if router else [])


def _router(router: Mapping[str, Any]) -> list[str]:
    """What asking brings, and the dial."""
    lines = [
        "## Router",
        "",
        "Everything below is cross-fitted on the calibration photos. What asking brings:",
        "",
        "| asked | top-1 | NLL | mean cost |",
        "|---|---|---|---|",
    ]
    for title, key in (("nobody", "never"), ("by the router, default", "chosen"), ("everybody", "always")):
        row = router[key]
        lines.append(f"| {title} | {row['accuracy']:.1%} | {row['nll']:.3f} | {row['mean_cost']:.2f} |")
    lines += [
        "",
        "The dial `--budget`: 0 asks nobody; each step gives likelier answers than every cheaper one.",
        "",
        "| budget | gain asked per cost | mean cost | top-1 | NLL | photos with experts |",
        "|---|---|---|---|---|---|",
    ]
    for row in router["curve"]:
        mark = " (default)" if row["budget"] == router["chosen"]["budget"] else ""
        lines.append(
            f"| {row['budget']:g}{mark} | {row['cost_weight']:.4g} | {row['mean_cost']:.2f} | "
            f"{row['accuracy']:.1%} | {row['nll']:.3f} | {row['deferral_rate']:.0%} |"
        )
    return [
        *lines,
        "",
        "`python benchmarks/simple_rules.py DATA` compares router and arbiter with simple rules.",
        "",
    ]
