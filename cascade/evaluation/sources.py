"""Measures accuracy source by source, so that a large source cannot hide how the others fare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from cascade.evaluation.metrics import Interval, wilson_interval
from cascade.evaluation.results import Evaluation

__all__ = ["LEAST", "BySource", "SourceAccuracy", "accuracy_by_source", "render_sources"]

#: A source of fewer photos is listed, but is not called the worst.
LEAST: Final = 20


@dataclass(frozen=True, slots=True)
class SourceAccuracy:
    """How the photos of one source fare.

    Attributes:
        source: its name; sources "web:site" count as one, "web".
        photos: how many.
        accuracy: of the cascade, share of photos whose most probable label is the right one.
        interval: of the accuracy, at 95 %, by Wilson's method.
        general_accuracy: of the general model alone.
    """

    source: str
    photos: int
    accuracy: float
    interval: Interval
    general_accuracy: float


@dataclass(frozen=True, slots=True)
class BySource:
    """Accuracy of every source, the largest source first.

    Attributes:
        sources: one row each.
        mean: mean of the accuracies, every source counting the same.
        worst: name of the source where accuracy is lowest, of those with ``least`` photos; None without one.
        least: see `LEAST`.
    """

    sources: tuple[SourceAccuracy, ...]
    mean: float
    worst: str | None
    least: int = LEAST

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def accuracy_by_source(evaluation: Evaluation) -> BySource | None:
    """Return accuracy by source; None if the photos have one source or none."""
    names = np.array([photo.collection for photo in evaluation.photos], dtype=str)
    found, counts = np.unique(names, return_counts=True)
    if len(found) < 2:
        return None
    right, general = evaluation.right("cascade"), evaluation.right("general")
    rows = []
    for name, count in sorted(zip(found, counts, strict=True), key=lambda pair: (-pair[1], pair[0])):
        these = names == name
        correct = int(right[these].sum())
        rows.append(
            SourceAccuracy(
                source=str(name) or "unknown",
                photos=int(count),
                accuracy=correct / int(count),
                interval=wilson_interval(correct, int(count)),
                general_accuracy=float(general[these].mean()),
            )
        )
    large = [row for row in rows if row.photos >= LEAST]
    worst = min(large, key=lambda row: row.accuracy).source if large else None
    return BySource(tuple(rows), float(np.mean([row.accuracy for row in rows])), worst)


def render_sources(found: BySource) -> str:
    """Return the results as text of at most 100 columns, with a line feed at the end."""
    lines = [f"{'source':<32}  {'n':>6}  {'top-1 %':>7}  {'95 %':>11}  {'general alone %':>15}"]
    for row in found.sources:
        interval = f"{100 * row.interval.low:.1f}–{100 * row.interval.high:.1f}"
        mark = "  worst" if row.source == found.worst else ""
        lines.append(
            f"{row.source[:32]:<32}  {row.photos:>6}  {100 * row.accuracy:>7.1f}  {interval:>11}  "
            f"{100 * row.general_accuracy:>15.1f}{mark}"
        )
    lines.append(f"{'mean over sources':<32}  {'':>6}  {100 * found.mean:>7.1f}")
    return "\n".join(lines) + "\n"
