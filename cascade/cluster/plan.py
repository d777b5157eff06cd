"""Cuts a listing into parts and keeps which photos belong to which, so that every run cuts them alike."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cascade.cluster.output_folder import OutputFolder
from cascade.errors import OutputError
from cascade.imaging.files import Found
from cascade.prediction import ErrorInfo

__all__ = ["Plan", "Totals", "part_name", "part_number"]

_HOME: Final = "_cascade/plan"
_COMPLETE: Final = "_cascade/plan.json"
_PART: Final = re.compile(r"part-(\d{6,})\.parquet")


def part_name(number: int) -> str:
    """Return the name of the file with the rows of a part."""
    return f"part-{number:06d}.parquet"


def part_number(name: str) -> int | None:
    """Return the number of the part that a file holds; None if it is another file."""
    match = _PART.fullmatch(name)
    return None if match is None else int(match[1])


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is, once everything was listed.

    Attributes:
        parts: number of parts.
        photos: in all of them.
        left_out: reason -> files that are no photos to classify.
    """

    parts: int
    photos: int
    left_out: dict[str, int]


class Plan:
    """The parts of a run; each is a small Parquet file with the paths of its photos, written once.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def totals(self) -> Totals | None:
        """Return how much there is; None while the listing is not complete."""
        content = self._folder.read(_COMPLETE)
        return None if content is None else Totals(**json.loads(content))

    def count(self) -> int:
        """Return how many parts there are so far."""
        return sum(part_number(name) is not None for name in self._folder.names(_HOME))

    def has(self, number: int) -> bool:
        """Whether a part was planned."""
        return self._folder.exists(_name(number))

    def photos(self, number: int) -> list[Found]:
        """Return the photos of a part, in the order of the listing."""
        return list(_photos(self._content(number)))

    def size(self, number: int) -> int:
        """Return how many photos a part has."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(io.BytesIO(self._content(number))).num_rows)

    def _content(self, number: int) -> bytes:
        content = self._folder.read(_name(number))
        if content is None:
            raise OutputError(
                f"{self._folder.path_of(_name(number))}: is missing; begin again with --restart"
            )
        return content

    def clear(self) -> None:
        """Forget every part."""
        self._folder.remove(_COMPLETE, *(f"{_HOME}/{name}" for name in self._folder.names(_HOME)))

    def extend(
        self,
        found: Iterable[Found],
        *,
        size: int,
        left_out: Callable[[], dict[str, int]],
        stopped: Callable[[], bool],
        first: int = 0,
        photos: int = 0,
    ) -> Totals | None:
        """Add parts until the listing ends; memory holds the names of one part.

        Args:
            found: photos behind those of the parts that are there.
            size: photos in a part.
            left_out: what the listing passed over, asked at its end.
            stopped: ends it early, between two parts.
            first: number of the next part.
            photos: in the parts before it.

        Returns:
            The totals, which are kept from now on; None when it was stopped.
        """
        number, stream = first, iter(found)
        while group := list(islice(stream, size)):
            self._folder.write(_name(number), _content(group))
            number, photos = number + 1, photos + len(group)
            if stopped():
                return None
        if stopped():  # a list on standard input ends early then
            return None
        totals = Totals(number, photos, dict(left_out()))
        kept = {"parts": totals.parts, "photos": totals.photos, "left_out": totals.left_out}
        self._folder.write(_COMPLETE, json.dumps(kept).encode())
        return totals


def _name(number: int) -> str:
    return f"{_HOME}/{part_name(number)}"


def _content(found: list[Found]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "path": pa.array([os.fsencode(one.path) for one in found], pa.binary()),  # not always UTF-8
        "error_code": pa.array([one.error and one.error.code for one in found], pa.string()),
        "error_message": pa.array([one.error and one.error.message for one in found], pa.string()),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    return file.getvalue()


def _photos(content: bytes) -> Iterator[Found]:
    import pyarrow.parquet as pq

    for row in pq.read_table(io.BytesIO(content)).to_pylist():
        error = ErrorInfo(row["error_code"], row["error_message"]) if row["error_code"] else None
        yield Found(os.fsdecode(row["path"]), error=error)
