"""Shows what an audit found in a terminal: a count of every kind, then what is said about labels."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cascade.audit.audit import Audit
from cascade.audit.finding import KINDS, Finding
from cascade.audit.shortcuts import Association
from cascade.imaging.files import printable

__all__ = ["render"]

_WIDTH: Final = 100
#: Findings about labels that are listed, of each kind.
_LISTED: Final = 8


def render(found: Audit) -> str:
    """Return what was found as text of at most 100 columns, with a line feed at the end."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("found", justify="right", no_wrap=True)
    splits = sorted({photo.split for photo in found.photos if photo.split}, reverse=True)
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
    table.add_column("what it means")
    for kind, meaning in KINDS.items():
        ours = found.of_kind(kind)
        if ours:
            by_split = Counter(finding.split for finding in ours)
            counts = [f"{by_split[split]:,}" if by_split[split] else "" for split in splits]
            table.add_row(kind, f"{len(ours):,}", *counts, meaning)
    lines = [_headline(found), *_across(found)]
    for kind in ("few_photos", "single_source", "shortcut", "confusable"):
        lines += _about_labels(kind, found.of_kind(kind))
    lines += [_association(one) for one in found.associations]
    buffer = StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False)
    if table.row_count:
        console.print(table)
    text = [line.rstrip() for line in buffer.getvalue().splitlines()]
    return "\n".join([lines[0], *text, *lines[1:]]).strip("\n") + "\n"


def _headline(found: Audit) -> str:
    labels = len({photo.label for photo in found.photos})
    text = f"{len(found.photos):,} photos, {labels} labels, {len(found.findings):,} findings"
    if found.accuracy is not None:
        text += f"; a model fitted on the other photos gives {100 * found.accuracy:.0f} % their label"
    return text


def _across(found: Audit) -> list[str]:
    pairs = found.of_kind("exact_duplicate") + found.of_kind("near_duplicate")
    splits = sum(finding.split != finding.other_split for finding in pairs)
    labels = sum(finding.label != finding.other_label for finding in pairs)
    return [f"duplicates: {splits:,} across splits, {labels:,} across labels"] if pairs else []


def _about_labels(kind: str, findings: list[Finding]) -> list[str]:
    lines = []
    for finding in findings[:_LISTED]:
        other = f" and {finding.other}" if kind == "confusable" else ""
        lines.append(f"{kind}: {printable(finding.label + other)}: {printable(finding.detail)}")
    left = len(findings) - _LISTED
    return [*lines, *([f"{kind}: and {left} more labels"] if left > 0 else [])]


def _association(one: Association) -> str:
    return (
        f"{one.attribute} and label: mutual information {one.information:.2f} of 1; the label is guessed from"
        f" it for {100 * one.label_from_it:.0f} % (by chance {100 * one.label_by_chance:.0f} %), it from the "
        f"label for {100 * one.it_from_label:.0f} % (by chance {100 * one.it_by_chance:.0f} %)"
    )
