"""Returns one CSV row per photo of an evaluation, unreadable photos among them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade.evaluation.report.analysis import expert_says
from cascade.evaluation.results import SYSTEMS, Evaluation
from cascade.imaging.files import readable

__all__ = ["photo_rows", "write_csv"]


def photo_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield what is known of every photo, the readable ones first, in the order of the evaluation.

    The columns are path, label, parent, source, width, height, status, error_code, error_message; the
    policy's answer, its confidence and reason; for each system its label, confidence and whether it is right;
    the experts that were asked and the cost; and for every expert, asked or not, the gain that the router
    expected of it, what it says and its plain softmax.
    """
    tree, experts = evaluation.bundle.tree, evaluation.bundle.experts
    predicted = {system: evaluation.predicted(system) for system in SYSTEMS}
    confidence = {system: evaluation.confidence(system) for system in SYSTEMS}
    deferred, cost = evaluation.deferred["cascade"], evaluation.cost()
    says = {expert.name: expert_says(evaluation, expert.name) for expert in experts}
    for place, photo in enumerate(evaluation.photos):
        decision = evaluation.decision(place)
        row: dict[str, Any] = {
            "path": readable(str(photo.path)),
            "label": photo.label,
            "parent": tree.parent_of[photo.label],
            "source": photo.source,
            "width": int(evaluation.sizes[place, 0]),
            "height": int(evaluation.sizes[place, 1]),
            "status": "ok",
            "error_code": "",
            "error_message": "",
            "answer": decision.label,
            "confidence": _short(decision.confidence),
            "reason": decision.reason,
        }
        for system in SYSTEMS:
            label = tree.labels[predicted[system][place]]
            row[system] = label
            row[f"{system}_confidence"] = _short(confidence[system][place])
            row[f"{system}_right"] = int(label == photo.label)
        row["asked"] = " ".join(e.name for e, flag in zip(experts, deferred[place], strict=True) if flag)
        row["cost"] = _short(cost[place])
        for column, expert in enumerate(experts):
            labels, sure = says[expert.name]
            row[f"{expert.name}_gain"] = _short(evaluation.gain[place, column])
            row[f"{expert.name}_says"] = labels[place]
            row[f"{expert.name}_confidence"] = _short(sure[place])
        yield row
    for photo, why in evaluation.failed:
        yield {
            "path": readable(str(photo.path)),
            "label": photo.label,
            "parent": tree.parent_of[photo.label],
            "source": photo.source,
            "status": "error",
            "error_code": why.code,
            "error_message": why.message,
        }


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """Write `photo_rows`; cells that do not apply are empty."""
    rows = photo_rows(evaluation)
    first = next(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(first), restval="")
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(rows)


def _short(value: float) -> float:
    """Six digits, as in `cascade.prediction.Prediction.to_dict`."""
    return round(float(value), 6)
