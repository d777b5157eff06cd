"""Draws the plots of an evaluation as SVG.

Needs matplotlib, so it is imported only when a page is written. The figures are built without pyplot and its
global state, with the text left as text, so that a page stays small and can be searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

__all__ = ["COLOURS", "draw"]

#: Okabe and Ito's palette, which colour-blind people can tell apart.
COLOURS: Final = {"general": "#777777", "cascade": "#0072b2", "always": "#d55e00"}

_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cascade",  # the same evaluation gives the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
#: Steps of the dial that get their number; all of them would run into each other.
_SHOWN_BUDGETS: Final = (0.1, 0.25, 0.5, 0.75, 1.0)
_SIZE: Final = (4.3, 3.6)  # inches; three beside each other fill the page


def draw(found: Mapping[str, Any], systems: Mapping[str, str]) -> dict[str, str]:
    """Return every plot of the page by name.

    Args:
        found: see `cascade.evaluation.report.analysis.analyse`.
        systems: key -> name for people; only these are drawn.
    """
    with mpl.rc_context(_STYLE):
        plots = {
            "reliability": _reliability(found["reliability"], systems),
            "risk_coverage": _risk_coverage(found["risk_coverage"], systems),
            "confusion": _confusion(**found["confusion"]),
        }
        if found["curve"]:
            plots["cost"] = _cost(found["ways"], found["curve"], systems)
    return plots


def _cost(
    scores: Mapping[str, Mapping[str, Any]], curve: Sequence[Mapping[str, float]], systems: Mapping[str, str]
) -> str:
    figure, axes = _axes()
    line = sorted((point["cost"], point["accuracy"]) for point in curve)
    axes.plot(
        *zip(*line, strict=True),
        color=COLOURS["cascade"],
        lw=1.2,
        alpha=0.6,
        marker=".",
        ms=4,
        label="the router's dial",
    )
    for point in curve:
        if point["budget"] in _SHOWN_BUDGETS:
            axes.annotate(
                f"{point['budget']:g}",
                (point["cost"], point["accuracy"]),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=COLOURS["cascade"],
            )
    for system, name in systems.items():
        row = scores[system]
        low, high = row["accuracy_interval"]
        axes.errorbar(
            row["cost"],
            row["accuracy"],
            yerr=[[row["accuracy"] - low], [high - row["accuracy"]]],
            fmt="o",
            color=COLOURS[system],
            capsize=3,
            label=name,
        )
    axes.set_xlabel("mean cost per photo, in runs of the general model")
    axes.set_ylabel("top-1 accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend(loc="best", fontsize=9)
    return _svg(figure)


def _reliability(bins: Mapping[str, Sequence[Mapping[str, Any]]], systems: Mapping[str, str]) -> str:
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color="#aaaaaa", lw=1, ls="--", label="perfect calibration")
    for system, name in systems.items():
        if system == "always":  # three sets of bars hide each other; its calibration error is in the table
            continue
        rows = bins[system]
        accuracy = np.array([row["accuracy"] for row in rows])
        interval = np.array([row["accuracy_interval"] for row in rows])
        axes.errorbar(
            [row["confidence"] for row in rows],
            accuracy,
            yerr=[accuracy - interval[:, 0], interval[:, 1] - accuracy],
            fmt="o-",
            ms=4,
            lw=1,
            elinewidth=0.8,
            capsize=2,
            color=COLOURS[system],
            label=name,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence (mean of the bin)")
    axes.set_ylabel("accuracy (share of the bin)")
    _percent_axes(axes)
    axes.legend(loc="upper left", fontsize=9)
    return _svg(figure)


def _risk_coverage(curves: Mapping[str, Sequence[Mapping[str, float]]], systems: Mapping[str, str]) -> str:
    figure, axes = _axes()
    for system, name in systems.items():
        points = curves[system]
        coverage = [point["coverage"] for point in points]
        axes.plot(coverage, [point["risk"] for point in points], color=COLOURS[system], label=name)
        axes.plot(
            coverage, [point["generalized_risk"] for point in points], color=COLOURS[system], ls=":", lw=1.3
        )
    axes.plot([], [], color="#555555", ls=":", lw=1.3, label="wrong, of all photos")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage: share of photos answered")
    axes.set_ylabel("risk: error among the answered")
    _percent_axes(axes)
    axes.legend(loc="best", fontsize=9)
    return _svg(figure)


def _confusion(labels: Sequence[str], parents: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    table = np.array(counts)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 1.8 + 0.23 * len(labels))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # The square root lifts rare confusions out of the white.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(False)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_xlabel("answer of the cascade")
    axes.set_ylabel("label of the photo")
    for border in (i for i in range(1, len(parents)) if parents[i] != parents[i - 1]):
        axes.axhline(border - 0.5, color="#9aa4ad", lw=0.6)
        axes.axvline(border - 0.5, color="#9aa4ad", lw=0.6)
    for row, column in np.argwhere(table > 0):
        axes.text(
            column,
            row,
            str(table[row, column]),
            ha="center",
            va="center",
            fontsize=6,
            color="white" if shares[row, column] > 0.3 else "#333333",
        )
    return _svg(figure)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _percent_axes(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    # Inside HTML the XML prologue and document type are an error.
    return text.getvalue()[text.getvalue().index("<svg") :]
