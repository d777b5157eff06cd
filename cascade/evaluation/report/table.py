"""Shows an evaluation in a terminal, the systems side by side."""

from __future__ import annotations

from io import StringIO
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cascade.evaluation.metrics import Interval, PairedDifference
from cascade.evaluation.results import SYSTEMS, Evaluation
from cascade.imaging.files import printable

__all__ = ["compared_systems", "difference_text", "percent", "percent_interval", "render_table"]

_WIDTH: Final = 100
_LISTED: Final = 10


def compared_systems(evaluation: Evaluation) -> dict[str, str]:
    """Return the systems that differ; a bundle without experts is its general model and nothing else."""
    return dict(SYSTEMS) if evaluation.bundle.experts else {"cascade": "general, no experts"}


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage, without the sign."""
    return f"{100 * share:.{digits}f}"


def percent_interval(interval: Interval, digits: int = 1) -> str:
    """Return an interval of shares as percentages, without the sign."""
    return f"{percent(interval.low, digits)}–{percent(interval.high, digits)}"


def difference_text(difference: PairedDifference) -> str:
    """Return a paired difference as one sentence without a full stop."""
    low, high = (100 * end for end in difference.interval)
    return (
        f"{100 * difference.difference:+.1f} points (95 %: {low:+.1f} to {high:+.1f}), "
        f"{difference.helped} photos won, {difference.harmed} lost, p = {difference.p_value:.2g}"
    )


def render_table(evaluation: Evaluation) -> str:
    """Return the results of an evaluation as text of at most 100 columns, with a line feed at the end."""
    bundle, n = evaluation.bundle, len(evaluation.photos)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for heading in ("top-1 %", "95 %", "group %", "NLL", "Brier", "ECE %", "smECE %", "asked %", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for system, name in compared_systems(evaluation).items():
        metrics = evaluation.measure(system)
        table.add_row(
            name,
            percent(metrics.accuracy),
            percent_interval(metrics.accuracy_interval),
            percent(metrics.group_accuracy),
            f"{metrics.nll:.3f}",
            f"{metrics.brier:.3f}",
            percent(metrics.ece),
            percent(metrics.smooth_ece),
            percent(metrics.deferral_rate),
            f"{metrics.cost:.2f}",
        )
    lines = [f"{n} photos, {len(bundle.tree.labels)} labels, bundle {bundle.name} {bundle.version}"]
    if bundle.experts:
        lines += [
            f"cascade - general alone: {difference_text(evaluation.difference())}",
            f"cascade - all experts always: {difference_text(evaluation.difference('always'))}",
            *(
                f"cascade - without {name}: {difference_text(evaluation.contribution(name))}"
                for name in evaluation.without
            ),
        ]
    floor = percent(evaluation.measure().ece_floor)
    lines += [
        f"ECE: {floor} % would be seen on so many photos if calibration were perfect",
        "asked: photos for which any expert was asked; cost: per photo, in runs of the general model",
    ]
    unread = [(photo.path, why.message) for photo, why in evaluation.failed]
    for what, files in (("could not be read", unread), ("not used", evaluation.dropped)):
        if files:
            lines.append(f"{len(files)} {what}:")
            lines += [f"  {printable(str(path))}: {reason}" for path, reason in files[:_LISTED]]
            lines += [f"  and {len(files) - _LISTED} more"] if len(files) > _LISTED else []
    buffer = StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False)
    console.print(table)
    # The box leaves an empty line above and below the table; only the one below is wanted.
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines() + lines).strip("\n") + "\n"
