"""Joins a run, its index and its corrections, and knows what the review page shows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cascade.bundle.manifest import Bundle
from cascade.imaging.thumbnail import thumbnail_webp
from cascade.labels import UNKNOWN
from cascade.review.corrections import Change, CorrectionLog, Entry
from cascade.review.estimate import estimate_accuracy
from cascade.review.label_keys import label_keys
from cascade.review.ordering import ORDERS
from cascade.review.run_index import ReviewFilter, RunIndex, find_root
from cascade.runs.rows import Row, bundle_id

__all__ = ["ReviewSession"]

_THUMBNAIL: Final = 240
_LARGE: Final = 1600
_REMEMBERED: Final = 3_000


class ReviewSession:
    """One run that people look at.

    Args:
        name: of the run, for the title.
        run: its file.
        rows: its rows.
        bundle: whose labels people choose from.
        log: corrections; the caller closes it.
        max_pixels: larger photos are not shown.
    """

    def __init__(
        self, name: str, run: Path, rows: Iterable[Row], bundle: Bundle, log: CorrectionLog, max_pixels: int
    ) -> None:
        self.name, self.run, self.bundle, self.log = name, run, bundle, log
        self.index = RunIndex(rows, bundle.tree, log)
        self._max_pixels = max_pixels
        self._root = find_root(self.index.paths, run)
        self._pictures: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def about(self) -> dict[str, Any]:
        """Return what the page needs once."""
        tree, keys = self.bundle.tree, label_keys(self.bundle.tree.labels)
        made_by = sorted(name for name in self.index.bundles if name)
        other = [name for name in made_by if not name.startswith(bundle_id(self.bundle))]
        return {
            "name": self.name,
            "photos": len(self.index),
            "labels": [
                {"label": label, "parent": tree.parent_of[label], "key": keys.get(label)}
                for label in tree.labels
            ],
            "orders": ORDERS,
            "note": f"made by {', '.join(other)}; the labels here are those of {bundle_id(self.bundle)}"
            if other
            else "",
            "corrections": self.log.path.name,
        }

    def progress(self) -> dict[str, Any]:
        """Return the live figures: counts, and what the photos that were looked at say about all."""
        index = self.index
        with index.lock:
            answered, right, alone = index.answered, index.is_right(), index.reviewed_alone
            confidence = index.confidence
        found = estimate_accuracy(confidence[answered], right[answered], alone[answered])
        promised = self.bundle.operating_points["default"].max_error
        return {
            "counts": index.counts(),
            "last": self.log.last,
            "answered": int(answered.sum()),
            "accuracy": None
            if found is None
            else {"value": found.value, "low": found.low, "high": found.high, "looked_at": found.looked_at},
            "promised_error": promised,
        }

    def summaries(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return what the tiles of the grid show."""
        index, right = self.index, self.index.is_right()
        found = []
        for number in numbers:
            state = self.log.state(index.paths[number])
            found.append(
                {
                    "id": number,
                    "path": index.paths[number],
                    "answer": index.answer_name(number),
                    "confidence": round(float(index.confidence[number]), 4),
                    "state": None if state is None else state_of(state),
                    "right": bool(right[number]) if state is not None else None,
                }
            )
        return found

    def picture(self, number: int, *, large: bool) -> bytes:
        """Return a photo as WebP; the newest ones are remembered.

        Raises:
            ImageError: when the photo cannot be read (any more).
        """
        side = _LARGE if large else _THUMBNAIL
        key = (number, side)
        if (found := self._pictures.get(key)) is None:
            path = Path(self.index.file_of(number))
            if self._root is not None and not path.is_absolute():
                path = self._root / path
            found = thumbnail_webp(path, side, max_pixels=self._max_pixels)
            if not large:
                self._pictures[key] = found
                while len(self._pictures) > _REMEMBERED:
                    self._pictures.popitem(last=False)
        return found

    def change(self, number: int, label: str | None, seen: int) -> Change:
        """Return the change that gives a photo a label; None says that the answer is right as it is.

        Raises:
            ValueError: when the label does not exist, or there is no answer that could be right.
        """
        answer = self.index.answer_name(number)
        wanted = answer if label is None else label
        if wanted is None:
            raise ValueError("this photo has no answer that could be accepted; choose a label")
        tree = self.bundle.tree
        if wanted != UNKNOWN and wanted not in (*tree.labels, *tree.parents):
            raise ValueError(f"there is no label {wanted!r}")
        kind = "accept" if wanted == answer else "unknown" if wanted == UNKNOWN else "label"
        return Change(self.index.paths[number], kind, wanted, answer, seen)

    def say(self, changes: Sequence[Change], reviewer: str) -> list[int]:
        """Write changes and return the photos that may look different now; see `CorrectionLog.append`."""
        return self.index.update(self.log.append(changes, reviewer))

    def accept_above(self, wanted: ReviewFilter, confidence: float, reviewer: str) -> list[int]:
        """Accept every open photo of a filter whose answer is a label of at least a confidence."""
        self.catch_up()
        index = self.index
        numbers = index.select(wanted)
        sure = (index.final[numbers] < 0) & (index.confidence[numbers] >= confidence)
        changes = []
        for number in numbers[sure].tolist():
            answer = index.answer_name(number)
            if answer in self.bundle.tree.parent_of:
                changes.append(Change(index.paths[number], "bulk", str(answer), answer, 0))
        return self.say(changes, reviewer) if changes else []

    def undo(self, reviewer: str, batch: int | None) -> list[int]:
        """Take back; see `CorrectionLog.undo`."""
        return self.index.update(self.log.undo(reviewer, batch))

    def catch_up(self) -> list[int]:
        """Read what other processes have written."""
        return self.index.update(self.log.sync())

    def changed_since(self, last: int) -> list[int]:
        """Return the photos that entries after ``last`` are about."""
        self.catch_up()
        return sorted({n for path in self.log.paths_since(last) if (n := self.index.id_of(path)) is not None})

    def missing(self) -> int:
        """Return how many of the first photos are not where the run says."""
        numbers = np.linspace(0, len(self.index) - 1, min(20, len(self.index))).astype(int).tolist()
        root = self._root or Path()
        return sum(not (root / self.index.file_of(number)).exists() for number in numbers)


def state_of(entry: Entry) -> dict[str, Any]:
    """Return what the page knows about an entry."""
    return {
        "id": entry.id,
        "batch": entry.batch,
        "kind": entry.kind,
        "label": entry.label,
        "reviewer": entry.reviewer,
        "time": entry.time,
    }
