"""Shows a comparison of backbones as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from cascade.ownership import PNG_MARK

__all__ = ["Accuracy", "Compared", "plot", "table"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers among the photos of one recipe's labels, with its 95 % interval (Wilson)."""

    right: int
    photos: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """What one backbone showed.

    Attributes:
        name: of the timm model.
        weights: where they come from.
        side: pixels of the input.
        parameters: of the backbone, without a classifier.
        onnx_mb: size of the exported image stage in 10^6 bytes, as a bundle would hold it.
        ms: median milliseconds per photo, onnxruntime on one thread.
        cost: floating-point operations, relative to the first backbone.
        accuracy: recipe -> how often it is right among that recipe's labels.
    """

    name: str
    weights: str
    side: int
    parameters: int
    onnx_mb: float
    ms: float
    cost: float
    accuracy: dict[str, Accuracy]


def table(rows: Sequence[Compared]) -> Table:
    """Return one row per backbone."""
    table = Table(title="frozen features and logistic regression, on calibration (95 % interval)")
    table.add_column("backbone", overflow="fold")
    for heading in ("px", "parameters", "ONNX", "ms/photo", "cost", *rows[0].accuracy):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            str(row.side),
            f"{row.parameters / 1e6:.2f} M",
            f"{row.onnx_mb:.1f} MB",
            f"{row.ms:.2f}",
            f"{row.cost:.2f}",
            *(f"{a.accuracy:.1%} ({a.low:.1%} to {a.high:.1%})" for a in row.accuracy.values()),
        )
    return table


def plot(rows: Sequence[Compared], path: Path) -> None:
    """Draw accuracy over cost and over time into a PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    axes: Any = figure.subplots(1, 2, sharey=True)
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
    for side, (title, of) in zip(
        axes,
        (
            ("floating-point operations, the first = 1", lambda row: row.cost),
            ("milliseconds per photo, one thread", lambda row: row.ms),
        ),
        strict=True,
    ):
        for number, column in enumerate(rows[0].accuracy):
            found = [row.accuracy[column] for row in rows]
            side.errorbar(
                [of(row) for row in rows],
                [a.accuracy for a in found],
                yerr=[[a.accuracy - a.low for a in found], [a.high - a.accuracy for a in found]],
                fmt="o",
                color=colours[number % len(colours)],
                capsize=3,
                label=column,
            )
        for row in rows:
            best = max(a.high for a in row.accuracy.values())
            where = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            side.annotate(f"{row.name} {row.side}", (of(row), best), rotation=90, fontsize=8, **where)
        side.set_xlabel(title)
        side.grid(color="#e6e6e6")
        side.margins(x=0.1, y=0.05)
        side.set_xlim(left=0)  # twice as far to the right is twice as dear
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.7 * (high - low))  # room for the names
    axes[0].set_yticks([tick for tick in axes[0].get_yticks() if low <= tick <= min(high, 1.0)])
    axes[0].set_ylabel("accuracy on calibration")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150, metadata=PNG_MARK)
