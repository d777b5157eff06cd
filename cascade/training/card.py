"""The model card. In: a bundle, its metrics and the words of the recipe. Out: Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.bundle import Bundle

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
        spec = f"{stage.input.width} x {stage.input.height}" if stage.input else ""
        lines.append(f"| {stage.name} | {size:.1f} | {spec} | {len(stage.labels)} | {stage.cost:g} |")
    lines += ["", "Cost is in units of one run of the general model (floating-point operations).", ""]
    lines += _measured(bundle) + _calibration(metrics)
    for title, key in (("Training data", "data"), ("Licence", "licence"), ("Limits", "limits")):
        if words.get(key):
            lines += [f"## {title}", "", words[key].strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _measured(bundle: Bundle) -> list[str]:
    rows = bundle.measured.get("rows")
    if not rows:
        return []
    lines = [
        "## Measured",
        "",
        f"On {bundle.measured['photos']} photos of the split `{bundle.measured['split']}`, "
        f"exported graphs; printed by `{bundle.measured['command']}`.",
        "",
        "| | top-1 | 95 % interval | groups | NLL | Brier | ECE | mean cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["accuracy_interval"]
        lines.append(
            f"| {row['name']} | {row['accuracy']:.1%} | {low:.1%} to {high:.1%} | "
            f"{row['group_accuracy']:.1%} | {row['nll']:.3f} | {row['brier']:.3f} | {row['ece']:.1%} | "
            f"{row['mean_cost']:.2f} |"
        )
    return [*lines, ""]


def _calibration(metrics: Mapping[str, Any]) -> list[str]:
    facts = metrics["calibration"]
    thresholds = facts["thresholds"]
    lines = [
        "## Calibration",
        "",
        f"Arbiter and router were fitted on {facts['fit_photos']} calibration photos, thresholds on "
        f"{facts['threshold_photos']} others, for at most {thresholds['max_error']:.0%} wrong answers: "
        f"{thresholds['answered_leaf']:.0%} of those got a label, {thresholds['answered_parent']:.0%} a "
        f'broader label, {thresholds["unknown"]:.0%} "unknown".',
        "",
    ]
    router = facts.get("router")
    if router:
        lines += [
            "What the router brings, cross-fitted on the calibration photos:",
            "",
            "| asked | top-1 | NLL | mean cost |",
            "|---|---|---|---|",
        ]
        for title, key in (
            ("nobody", "never"),
            ("by this router", "chosen"),
            ("by plain confidence, at the same cost", "confidence_baseline"),
            ("everybody", "always"),
        ):
            row = router[key]
            lines.append(f"| {title} | {row['accuracy']:.1%} | {row['nll']:.3f} | {row['mean_cost']:.2f} |")
        lines.append("")
    return lines
