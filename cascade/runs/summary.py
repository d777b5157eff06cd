"""Counts what a run amounted to, and says it in a few lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cascade.runs.rows import Row

__all__ = ["Summary"]


class Summary:
    """Counts of a run; memory does not grow with its length.

    Attributes:
        photos: rows of this run.
        errors: error code -> rows.
        warnings: rows that were classified with a remark.
        labels: answer -> rows.
        deferred: rows for which an expert was asked.
        already_done: photos that an earlier run had classified.
    """

    def __init__(self) -> None:
        self.photos = 0
        self.errors: Counter[str] = Counter()
        self.warnings = 0
        self.labels: Counter[str] = Counter()
        self.deferred = 0
        self.already_done = 0

    def add(self, row: Row) -> None:
        """Count one row."""
        self.photos += 1
        if row["error"] is not None:
            self.errors[row["error"]["code"]] += 1
            return
        self.labels[row["label"]] += 1
        self.deferred += bool(row["experts"])
        self.warnings += bool(row["warnings"])

    def counts(self) -> dict[str, Any]:
        """Return the counts as plain values that JSON keeps; `merge` takes them."""
        return {
            "photos": self.photos,
            "errors": dict(self.errors),
            "warnings": self.warnings,
            "labels": dict(self.labels),
            "deferred": self.deferred,
        }

    def merge(self, counts: Mapping[str, Any]) -> None:
        """Add the rows that another process counted; see `counts`."""
        self.photos += counts["photos"]
        self.errors.update(counts["errors"])
        self.warnings += counts["warnings"]
        self.labels.update(counts["labels"])
        self.deferred += counts["deferred"]

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return self.errors.total()

    def lines(self, seconds: float, left_out: Mapping[str, int] | None = None) -> list[str]:
        """Return the summary for people.

        Args:
            seconds: that the run took.
            left_out: reason -> files that were found but are no photos to classify.
        """
        rate = self.photos / seconds if seconds > 0 else 0.0
        text = [f"{_count(self.photos, 'photo')} in {duration(seconds)} ({rate:.1f} photos/s)"]
        if self.already_done:
            text[0] += f"; {self.already_done:,} were done before"
        if self.labels:
            text.append("labels: " + _listed(self.labels))
            share = self.deferred / self.labels.total()
            text.append(f"experts were asked about {share:.1%} of the photos")
        if self.warnings:
            text.append(f"{_count(self.warnings, 'photo')} classified with a warning")
        if self.errors:
            text.append(f"{_count(self.failed, 'photo')} failed: " + _listed(self.errors))
        passed = Counter(left_out or {})
        if passed:
            advice = "; --follow-links follows links" if passed["links"] else ""
            advice += "; --archives looks into archives" if passed["archives"] else ""
            text.append("passed over: " + _listed(passed) + advice)
        return text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _listed(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number:,}" for name, number in ordered)


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
