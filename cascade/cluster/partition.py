"""Classifies one partition of rows, an Arrow table in and an Arrow table out; every cluster engine runs this.

A worker process opens the bundle once, when its first partition arrives, and computes on one thread: engines
start one worker per core. Only options travel between processes, never a session.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from cascade.classifier import Cascade
from cascade.cluster.options import PartitionOptions
from cascade.errors import BundleError, CascadeError, ImageError, MissingExtraError, UsageError
from cascade.prediction import ErrorInfo, Prediction
from cascade.runs.arrow_rows import arrow_schema, arrow_table
from cascade.runs.rows import Row, bundle_hash, bundle_id, make_row
from cascade.storage.fetching import ahead, is_url, read_url

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Photo", "Worker", "classify_partition", "open_worker", "partition_schema"]

ArrowRows = TypeVar("ArrowRows", bound="pa.Table | pa.RecordBatch")


def classify_partition(rows: ArrowRows, options: PartitionOptions | None = None) -> ArrowRows:
    """Classify one partition: one row out for each row in, in the same order.

    Args:
        rows: a `pyarrow.Table` or `pyarrow.RecordBatch` with a column of paths or URLs, a column with the
            bytes of image files, or both; `PartitionOptions` names them. Other columns are passed over.
        options: None takes the defaults.

    Returns:
        What was given, table or batch, with the columns of ``cascade classify --format parquet``. The
        metadata of the schema names the bundle. A photo that cannot be read is a row with an error code.

    Raises:
        UsageError: when no column can hold photos.
        BundleError: when this worker has no such bundle, or another one.
        MissingExtraError: when the package that reads this kind of URL is not installed.
    """
    import pyarrow as pa

    options = options or PartitionOptions()
    worker = open_worker(options)
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    answered = arrow_table(worker.rows(_given(table, options)), worker.fields, worker.schema)
    if isinstance(rows, pa.RecordBatch):
        columns = [column.combine_chunks() for column in answered.columns]
        answered = pa.RecordBatch.from_arrays(columns, schema=answered.schema)
    return cast(ArrowRows, answered)


def partition_schema(options: PartitionOptions | None = None) -> pa.Schema:
    """Return the columns that `classify_partition` gives, for engines that want to know before they run.

    Nothing is opened for it, so the bundle is not in its metadata.
    """
    try:
        return arrow_schema((options or PartitionOptions()).chosen_fields())
    except ModuleNotFoundError as error:
        raise MissingExtraError("classifying partitions", "parquet") from error


def open_worker(options: PartitionOptions) -> Worker:
    """Return the classifier of this process for these options; it is opened once.

    Raises:
        BundleError: when the bundle is missing, damaged, or not the one that the options name.
        UsageError: when the bundle cannot give what the options ask for.
    """
    with _OPENING:
        # A forked process has a number of its own, and so opens a classifier of its own.
        return _open(os.getpid(), options)


_OPENING = threading.Lock()


@functools.lru_cache(maxsize=4)
def _open(process: int, options: PartitionOptions) -> Worker:
    cascade = Cascade(
        options.bundle,
        operating_point=options.operating_point,
        max_error=options.max_error,
        budget=options.budget,
        label_set=options.label_set,
        top_k=options.top_k,
        ask=options.ask,
        workers=1,
        max_pixels=options.max_pixels,
        variant=options.variant,
    )
    sha256 = bundle_hash(cascade.bundle)
    if options.bundle_sha256 not in (None, sha256):
        raise BundleError(
            f"{cascade.bundle.folder}: this worker has bundle {sha256[:12]} here, and the run was begun with "
            f"{str(options.bundle_sha256)[:12]}; give every worker the same bundle"
        )
    name = bundle_id(cascade.bundle, cascade.variant)
    fields = options.chosen_fields()
    return Worker(options, cascade, name, fields, arrow_schema(fields, name, sha256))


@dataclass(frozen=True, slots=True)
class Photo:
    """A row of the input: where the photo came from, its bytes, or why there is nothing to classify."""

    path: str | None
    content: bytes | None = None
    error: ImageError | None = None

    @property
    def source(self) -> str | bytes | None:
        """What is classified; None if nothing can be."""
        if self.error is not None:
            return None
        return self.path if self.content is None else self.content


@dataclass(frozen=True, slots=True)
class Worker:
    """An open bundle with the options of the partitions that it classifies.

    Attributes:
        name: what a row's `bundle` says.
        fields: keys of a row that the answer holds.
        schema: of the answer, with the bundle in its metadata.
    """

    options: PartitionOptions
    cascade: Cascade
    name: str
    fields: tuple[str, ...]
    schema: pa.Schema

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the options: another process opens the bundle itself."""
        return open_worker, (self.options,)

    def rows(self, photos: Iterable[Photo], *, alone: bool = False) -> Iterator[Row]:
        """Yield one row for each photo, in order; memory holds a few batches of photos.

        Args:
            photos: any number of them.
            alone: take a photo only when the one before it has its row.
        """
        most, size = (1, 1) if alone else (2 * self.options.readers, self.options.batch_size)
        loaded = ahead(_load, photos, threads=self.options.readers, most=most)
        while batch := list(islice(loaded, size)):
            for prediction in self._predict(batch):
                yield make_row(prediction, self.name)

    def _predict(self, batch: Sequence[Photo]) -> list[Prediction]:
        readable = [photo.source for photo in batch if photo.source is not None]
        answers = iter(self._answers(readable))
        return [
            _error(photo.path, photo.error)
            if photo.error is not None
            else replace(next(answers), path=photo.path)
            for photo in batch
        ]

    def _answers(self, sources: Sequence[str | bytes]) -> list[Prediction]:
        """Classify; an exception that nobody foresaw becomes the error row of the photo that raises it."""
        try:
            return self.cascade.predict_batch(sources)
        except CascadeError:
            raise
        except Exception as error:
            if len(sources) > 1:
                return [self._answers([source])[0] for source in sources]
            # A photo that works shows whether it is this photo or the worker that fails.
            self.cascade.predict(np.full((64, 64, 3), 128, dtype=np.uint8))
            code = "not_enough_memory" if isinstance(error, MemoryError) else "damaged"
            text = f"reading it failed with {type(error).__name__}: {error}"
            return [_error(None, ImageError(code, text))]


def _given(table: pa.Table, options: PartitionOptions) -> Iterator[Photo]:
    """Return the photos of a table; they become Python objects a few at a time."""
    named = [name for name in (options.path_column, options.bytes_column) if name in table.column_names]
    if not named:
        raise UsageError(
            f"the rows have no column {options.path_column!r} (paths or URLs) and no column "
            f"{options.bytes_column!r} (bytes of image files), but {', '.join(table.column_names) or 'none'}"
            "; name the columns with path_column and bytes_column"
        )
    for name in named:
        _check_type(table.schema.field(name), paths=name == options.path_column)
    return _photos(table.select(named), options)


def _photos(table: pa.Table, options: PartitionOptions) -> Iterator[Photo]:
    for batch in table.to_batches(max_chunksize=options.batch_size):
        for row in batch.to_pylist():
            path, content = row.get(options.path_column), row.get(options.bytes_column)
            yield Photo(None if path is None else os.fsdecode(path), content)


def _check_type(field: pa.Field, *, paths: bool) -> None:
    import pyarrow.types as types

    inner = field.type.value_type if types.is_dictionary(field.type) else field.type
    tests = [types.is_null, types.is_binary, types.is_large_binary, types.is_binary_view]
    if paths:
        tests += [types.is_string, types.is_large_string, types.is_string_view]
    if not any(test(inner) for test in tests):
        wanted = "paths or URLs as strings" if paths else "the bytes of image files"
        raise UsageError(f"the column {field.name!r} holds {field.type}, not {wanted}; name another column")


def _load(photo: Photo) -> Photo:
    """Return the photo with its bytes, if it is elsewhere; a local file is read when it is decoded."""
    if photo.error is not None or photo.content is not None:
        return photo
    if photo.path is None:
        return replace(photo, error=ImageError("not_found", "the row has neither a path nor bytes"))
    if not is_url(photo.path):
        return photo
    try:
        return replace(photo, content=read_url(photo.path))
    except ImageError as error:
        return replace(photo, error=error)


def _error(path: str | None, error: ImageError) -> Prediction:
    return Prediction(path=path, status="error", error=ErrorInfo(error.code, error.message))
