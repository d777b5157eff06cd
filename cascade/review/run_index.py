"""Holds a finished run so that a hundred thousand rows can be filtered and ordered at once.

What filters look at is in arrays; whole rows are in a temporary SQLite database on the disk.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from cascade.labels import UNKNOWN, LabelTree
from cascade.review.corrections import CorrectionLog
from cascade.review.ordering import look_alikes, order
from cascade.runs.rows import Row, path_of

__all__ = ["ReviewFilter", "RunIndex"]

_CHUNK: Final = 2_000
_ERROR: Final = "error"


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Which photos, in which order; None and empty mean any.

    Attributes:
        label: what counts now: the correction if there is one, else the answer.
        status: ``"ok"`` or ``"error"``.
        reason: see `cascade.policy.REASONS`.
        route: ``"general"`` or experts joined by `` + ``.
        state: ``"open"``, ``"accepted"`` or ``"corrected"``.
        low: least confidence.
        high: greatest confidence.
        text: part of the path, in any case of letters.
        order: one of `cascade.review.ordering.ORDERS`.
    """

    label: str | None = None
    status: str | None = None
    reason: str | None = None
    route: str | None = None
    state: str | None = None
    low: float = 0.0
    high: float = 1.0
    text: str = ""
    order: str = "doubt"


class _Codes:
    """Numbers for strings, in the order in which they came."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.of: dict[str, int] = {}
        for name in names:
            self(name)

    def __call__(self, name: str) -> int:
        return self.of.setdefault(name, len(self.of))


class RunIndex:
    """The rows of a run and what people said about them. Thread-safe.

    Args:
        rows: of the run, each with a path.
        tree: labels that people can choose.
        log: corrections.
    """

    def __init__(self, rows: Iterable[Row], tree: LabelTree, log: CorrectionLog) -> None:
        self.tree, self.log = tree, log
        self.lock = threading.RLock()
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, content TEXT)")
        self.paths: list[str] = []
        self.bundles: dict[str, int] = {}
        self._labels, self._routes, self._reasons = _Codes(tree.labels), _Codes(), _Codes()
        self._read(rows)
        self._id_of = {path: number for number, path in enumerate(self.paths)}
        self._lower = [path.casefold() for path in self.paths]
        self.groups = look_alikes(self.paths, self._first, 1 - self.doubt)
        self._orders: dict[str, Any] = {}
        self.final = np.full(len(self.paths), -1, dtype=np.int64)
        self.reviewed_alone = np.zeros(len(self.paths), dtype=bool)
        self.update(log.states())

    def _read(self, rows: Iterable[Row]) -> None:
        answers, firsts, routes, reasons = [], [], [], []
        confidence, doubt = [], []
        source = iter(rows)
        while chunk := list(islice(source, _CHUNK)):
            start = len(self.paths)
            texts = [(start + n, json.dumps(row)) for n, row in enumerate(chunk)]
            self._database.executemany("INSERT INTO row VALUES (?, ?)", texts)
            for row in chunk:
                self.paths.append(row["path"])
                top = row.get("top") or []
                first = top[0]["probability"] if top else (row.get("confidence") or 0.0)
                answers.append(self._labels(row.get("label") or _ERROR))
                firsts.append(self._labels(top[0]["label"]) if top else answers[-1])
                confidence.append(row.get("confidence") or 0.0)
                doubt.append(1.0 - first if row.get("label") else -1.0)  # nothing to say about errors: last
                routes.append(
                    self._routes(" + ".join(e["name"] for e in row.get("experts") or []) or "general")
                )
                reasons.append(self._reasons(row.get("reason") or ""))
                bundle = str(row.get("bundle") or "")
                self.bundles[bundle] = self.bundles.get(bundle, 0) + 1
        self.answer = np.array(answers, dtype=np.int64)
        self._first = np.array(firsts, dtype=np.int64)
        self.confidence, self.doubt = np.array(confidence), np.array(doubt)
        self._route, self._reason = np.array(routes, dtype=np.int64), np.array(reasons, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def label_names(self) -> list[str]:
        """Name of each number in `answer` and `final`."""
        return list(self._labels.of)

    @property
    def answered(self) -> np.ndarray:
        """(N,) whether the run gave a label or a broader one."""
        none = [self._labels.of.get(name, -2) for name in (_ERROR, UNKNOWN)]
        return ~np.isin(self.answer, none)

    def answer_name(self, number: int) -> str | None:
        """Return what the run answered; None for an error."""
        name: str = self.label_names[self.answer[number]]
        return None if name == _ERROR else name

    def id_of(self, path: str) -> int | None:
        """Return the number of a photo by its path as in the run."""
        return self._id_of.get(path)

    def file_of(self, number: int) -> str:
        """Return the path of a photo as the operating system takes it."""
        return path_of(self.row(number))

    def row(self, number: int) -> Row:
        """Return the whole row of a photo."""
        with self.lock:
            found = self._database.execute("SELECT content FROM row WHERE id = ?", (number,)).fetchone()
        content: Row = json.loads(found[0])
        return content

    def update(self, paths: Iterable[str]) -> list[int]:
        """Take over what the log says now about some photos, and return their numbers."""
        numbers = []
        with self.lock:
            for path in paths:
                number = self._id_of.get(path)
                if number is None:
                    continue
                state = self.log.state(path)
                self.final[number] = -1 if state is None else self._labels(state.label or UNKNOWN)
                self.reviewed_alone[number] = state is not None and state.kind != "bulk"
                numbers.append(number)
        return numbers

    def select(self, wanted: ReviewFilter) -> np.ndarray:
        """Return the numbers of the photos that a filter lets through, in its order.

        Raises:
            KeyError: for an order that does not exist.
        """
        with self.lock:
            if wanted.order not in self._orders:
                self._orders[wanted.order] = order(wanted.order, self.doubt, self.groups, self.paths)
            now = np.where(self.final >= 0, self.final, self.answer)
            keep = (self.confidence >= wanted.low) & (self.confidence <= wanted.high)
            error = self._labels.of.get(_ERROR, -2)
            if wanted.label:
                keep &= now == self._labels.of.get(wanted.label, -2)
            if wanted.status:
                keep &= (self.answer == error) == (wanted.status == "error")
            if wanted.reason:
                keep &= self._reason == self._reasons.of.get(wanted.reason, -2)
            if wanted.route:
                keep &= self._route == self._routes.of.get(wanted.route, -2)
            if wanted.state == "open":
                keep &= self.final < 0
            elif wanted.state == "accepted":
                keep &= (self.final >= 0) & self.is_right()
            elif wanted.state == "corrected":
                keep &= (self.final >= 0) & ~self.is_right()
            if wanted.text:
                text = wanted.text.casefold()
                keep &= np.fromiter((text in path for path in self._lower), dtype=bool, count=len(self))
            ordered = self._orders[wanted.order]
        return np.asarray(ordered[keep[ordered]])

    def is_right(self) -> np.ndarray:
        """(N,) whether the answer agrees with what people said; False where nobody has."""
        names = self.label_names
        parent = np.array(
            [self._labels.of.get(self.tree.parent(name) or "", -3) for name in names], dtype=np.int64
        )
        reviewed = self.final >= 0
        final = np.where(reviewed, self.final, 0)
        return np.asarray(reviewed & ((self.answer == final) | (self.answer == parent[final])))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many photos each value of a filter has."""
        with self.lock:
            now = np.where(self.final >= 0, self.final, self.answer)
            reviewed, right = self.final >= 0, self.is_right()
            states = {"open": ~reviewed, "accepted": reviewed & right, "corrected": reviewed & ~right}
            return {
                "label": _tally(now, self.label_names),
                "route": _tally(self._route, list(self._routes.of)),
                "reason": _tally(self._reason, list(self._reasons.of)),
                "state": {name: int(mask.sum()) for name, mask in states.items()},
            }


def _tally(codes: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count and name}


def find_root(paths: Sequence[str], run: Path) -> Path | None:
    """Return the folder that relative paths of a run start from: here, or where the run's file is."""
    relative = [path for path in paths[:50] if not Path(path).is_absolute()]
    for folder in (Path(), run.parent):
        if any((folder / path).exists() for path in relative):
            return folder
    return None
