"""Shows promised beside measured as text for a terminal."""

from __future__ import annotations

import math
import textwrap
from typing import Final

from cascade.evaluation.guarantee_check import GuaranteeCheck

__all__ = ["promise_text", "render_guarantees"]

_WIDTH: Final = 100


def promise_text(check: GuaranteeCheck) -> str:
    """Return what is promised at the operating point, as one sentence without a full stop."""
    promised = check.rows[0].promised
    if promised is None or check.confidence is None:
        return "nothing is promised at this operating point"
    return (
        f"promised: at most {promised:.1%} of the answers are wrong, with {check.confidence:.0%} confidence, "
        "on photos like those of the calibration; nothing is promised under shift, the rows show what it "
        "costs"
    )


def render_guarantees(check: GuaranteeCheck) -> str:
    """Return the results as text of at most 100 columns, with a line feed at the end."""
    lines = textwrap.wrap(promise_text(check), _WIDTH)
    title = f"{'photos':<22}  {'n':>5}  {'wrong %':>7}  {'95 %':>9}  {'answered %':>10}"
    lines.append(f"{title}  {'label %':>7}  {'top-1 %':>7}  {'changed %':>9}")
    for row in check.rows:
        error = f"{100 * row.error:.1f}" if row.answered else "-"
        low, high = (100 * end for end in row.interval)
        lines.append(
            f"{row.name:<22}  {row.photos:>5}  {error:>7}  {f'{low:.1f}–{high:.1f}':>9}  "
            f"{100 * (1 - row.unknown):>10.1f}  {100 * row.labels:>7.1f}  {100 * row.accuracy:>7.1f}  "
            f"{_percent(row.changed) if row is not check.rows[0] else '':>9}"
            + ("  broken" if row.broken else "")
        )
    if len(check.rows) > 1:
        lines += textwrap.wrap(
            "answered: with a label or a broader one; changed: of the photos that get a label as they are, "
            "those whose most probable label is another one after the change; broken: more of the answers "
            "are wrong than promised",
            _WIDTH,
        )
    for found in check.sets:
        low, high = (100 * end for end in found.interval)
        lines.append(
            f"label sets of {found.wanted:.0%}: {100 * found.coverage:.1f} % ({low:.1f}–{high:.1f}) hold the "
            f"right label, {found.mean_size:.2f} labels on average, {100 * found.single:.0f} % are one label;"
        )
        lines.append(
            f"  worst label: {check.tree.labels[found.worst_label]}, "
            f"{100 * found.worst_label_coverage:.0f} % of {found.worst_label_photos} photos"
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"
