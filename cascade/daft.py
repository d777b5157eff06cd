"""Classifies photos in a Daft DataFrame.

import daft
from cascade.daft import classify

rows = classify(daft.from_glob_path("s3://bucket/photos/**/*.jpg"))
rows.write_parquet("s3://bucket/answers")
"""

from __future__ import annotations

from typing import Any, Final

from cascade.cluster.options import PartitionOptions
from cascade.cluster.partition import classify_partition, open_worker, partition_schema
from cascade.errors import needs_extra
from cascade.inference.cpu import usable_cores

__all__ = ["classify"]

_BATCH: Final = 256


def classify(frame: Any, options: PartitionOptions | None = None, *, processes: int | None = None) -> Any:
    """Classify the rows of a `daft.DataFrame`, lazily; each process opens the bundle once.

    Args:
        frame: with the columns that ``options`` name; others are passed over.
        options: None takes the defaults.
        processes: that work side by side, one thread each; None is one for each core of this machine.

    Returns:
        A DataFrame with the columns of `cascade.cluster.partition_schema`, a row for each row.

    Raises:
        MissingExtraError: when daft or pyarrow is not installed.
    """
    with needs_extra("cascade.daft", "daft"):
        import daft
        import pyarrow as pa
    options = options or PartitionOptions()
    names = [name for name in (options.path_column, options.bytes_column) if name in frame.column_names]
    answer = daft.DataType.from_arrow_type(pa.struct(list(partition_schema(options))))

    @daft.cls(use_process=True, max_concurrency=processes or usable_cores())
    class Worker:
        def __init__(self, options: PartitionOptions) -> None:
            self._options = options
            open_worker(options)  # noticed when the process starts, not with its first batch

        @daft.method.batch(return_dtype=answer, unnest=True, batch_size=_BATCH)  # type: ignore[untyped-decorator]
        def classify(self, *columns: Any) -> Any:
            table = pa.table(dict(zip(names, (column.to_arrow() for column in columns), strict=True)))
            return classify_partition(table, self._options).to_struct_array().combine_chunks()

    return frame.select(Worker(options).classify(*(frame[name] for name in names)))
