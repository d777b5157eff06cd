"""Holds what decides how partitions are classified, in a form that engines can send to their workers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import UsageError
from cascade.imaging.decoding import MAX_PIXELS
from cascade.runs.rows import choose_fields

__all__ = ["PartitionOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOptions:
    """How rows are classified and what the answers hold; plain values, so it pickles and can be hashed.

    The options of `cascade.Cascade` mean what they mean there.

    Attributes:
        bundle: folder of the bundle as every worker sees it; None takes ``$CASCADE_BUNDLE``, else the shipped
            one.
        bundle_sha256: SHA-256 of bundle.json that every worker must find, see
            `cascade.runs.rows.bundle_hash`; a worker with another bundle raises. None takes any.
        variant: "auto" is decided on every worker; name one where all rows must come from the same graphs.
        explain: also give what the stages said, as ``cascade classify --explain`` does.
        fields: comma-separated keys of the answer, see `cascade.runs.rows.choose_fields`.
        path_column: column of paths or URLs; a string, or bytes as the operating system has them.
        bytes_column: column with the bytes of image files; where it is missing or null, the path is read.
        batch_size: photos that go through the graphs together. It changes speed, not answers.
        readers: threads that read URLs ahead, because object stores answer late but many at once. They read;
            one thread computes.

    Raises:
        UsageError: when the fields are wrong, or no column could hold a photo.
    """

    bundle: str | None = None
    bundle_sha256: str | None = None
    operating_point: str = "default"
    max_error: float | None = None
    budget: float | None = None
    label_set: float | None = None
    top_k: int = 5
    ask: str = "router"
    variant: str = "auto"
    max_pixels: int = MAX_PIXELS
    explain: bool = False
    fields: str | None = None
    path_column: str = "path"
    bytes_column: str = "bytes"
    batch_size: int = 16
    readers: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.bundle, os.PathLike):
            object.__setattr__(self, "bundle", str(Path(self.bundle)))
        for name in ("batch_size", "readers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.path_column == self.bytes_column:
            raise UsageError(
                f"the column {self.path_column!r} cannot hold both paths and bytes; give two columns"
            )
        self.chosen_fields()

    def chosen_fields(self) -> tuple[str, ...]:
        """Return the keys of a row that the answer holds; the same as in Parquet files of `classify`."""
        also = () if self.label_set is None else ("label_set",)
        return choose_fields(self.fields, explain=self.explain, columns=True, also=also)
