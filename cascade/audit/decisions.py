"""Proposes what to do about each photo that an audit found, and reads what a person has decided.

`decisions.csv` has a row for every finding about a photo. A person changes its first column; the second says
what was proposed, so that a later audit keeps what was changed. Photos of the split `test` are never proposed
to be changed: what accuracy is measured on must not depend on the model that is measured.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cascade.audit.finding import Finding
from cascade.errors import DataError, OutputError
from cascade.runs.replacement import replacing
from cascade.runs.writers import safe_for_spreadsheets

__all__ = ["ACTIONS", "COLUMNS", "Decision", "propose", "read_decisions", "with_earlier", "write_decisions"]

#: What can be done about a photo; where findings about one photo disagree, the last of these counts.
ACTIONS: Final = ("keep", "relabel", "remove")
_REMOVED: Final = ("corrupt", "exact_duplicate", "near_duplicate", "blank", "part_missing")
#: Score from which the suggested label is proposed. Below it a person decides: to remove or relabel all that
#: is suspected made models worse where embeddings know little of the labels (`benchmarks/audit_cleaning.py`).
_SURE: Final = 0.95
_MEASURED: Final = "test"
#: Columns of decisions.csv.
COLUMNS: Final = ("action", "proposed", *Finding.__slots__)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about a finding.

    Attributes:
        action: one of `ACTIONS`.
        proposed: what the audit proposed.
        finding: about a photo.
    """

    action: str
    proposed: str
    finding: Finding

    def to_dict(self) -> dict[str, Any]:
        """Return the row of decisions.csv."""
        known = {name: safe_for_spreadsheets(getattr(self.finding, name)) for name in Finding.__slots__}
        return {"action": self.action, "proposed": self.proposed, **known, "score": round(known["score"], 4)}


def propose(findings: Iterable[Finding]) -> list[Decision]:
    """Return a decision for every finding about a photo, as it is proposed."""
    proposed = [(_proposed(finding), finding) for finding in findings if finding.path]
    return [Decision(action, action, finding) for action, finding in proposed]


def _proposed(finding: Finding) -> str:
    if finding.split == _MEASURED:
        return "keep"
    if finding.kind in _REMOVED:
        return "remove"
    if finding.kind == "mislabelled" and finding.score >= _SURE:
        return "relabel"
    return "keep"


def with_earlier(proposed: Sequence[Decision], earlier: Iterable[Decision]) -> list[Decision]:
    """Return new proposals, with what a person has changed in an earlier file about the same findings."""
    changed = {_key(one.finding): one.action for one in earlier if one.action != one.proposed}
    return [
        Decision(changed.get(_key(one.finding), one.action), one.proposed, one.finding) for one in proposed
    ]


def _key(finding: Finding) -> tuple[str, ...]:
    return finding.kind, finding.path, finding.other, finding.suggested


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Write decisions.csv, replacing an earlier one.

    Raises:
        OutputError: when it cannot be written.
    """
    try:
        with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(decision.to_dict() for decision in decisions)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def read_decisions(path: Path) -> list[Decision]:
    """Read decisions.csv, as written or as changed by a person.

    Raises:
        DataError: when it cannot be read; the message names the line and what it must say.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: has no column {sorted(missing)[0]!r}; give the decisions.csv of an audit"
                )
            return [_decision(row, f"{path}, line {reader.line_num}") for row in reader]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV file in UTF-8 ({error})") from error


def _decision(row: dict[str, str], where: str) -> Decision:
    action = (row["action"] or "").strip().lower()
    if action not in ACTIONS:
        raise DataError(f"{where}: the action is {row['action']!r}; it must be {', '.join(ACTIONS)}")
    # An apostrophe keeps spreadsheets from taking a name for a formula, see `safe_for_spreadsheets`.
    known = {name: (row[name] or "").removeprefix("'") for name in Finding.__slots__}
    if action == "relabel" and not known["suggested"].strip():
        raise DataError(f"{where}: to relabel, the column 'suggested' must name a label")
    try:
        finding = Finding(**{**known, "score": float(known["score"] or 0)})  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return Decision(action, (row["proposed"] or "").strip(), finding)
