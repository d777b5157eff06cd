"""Classifies photos in a Spark DataFrame.

    from cascade.spark import classify

    rows = classify(spark.createDataFrame([("s3://bucket/a.jpg",)], "path string"))
    rows.write.parquet("s3://bucket/answers")

Give Spark one core a task (its default). Where rows hold the bytes of photos, keep batches small:
``spark.sql.execution.arrow.maxRecordsPerBatch = 256``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cascade.cluster.options import PartitionOptions
from cascade.cluster.partition import classify_partition, partition_schema
from cascade.errors import needs_extra

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["classify"]


def classify(frame: Any, options: PartitionOptions | None = None) -> Any:
    """Classify the rows of a `pyspark.sql.DataFrame`, lazily; each Python worker opens the bundle once.

    Args:
        frame: with the columns that ``options`` name; others are passed over.
        options: None takes the defaults.

    Returns:
        A DataFrame with the columns of `cascade.cluster.partition_schema`, a row for each row.

    Raises:
        MissingExtraError: when pyspark, or pyarrow for it, is not installed.
    """
    with needs_extra("cascade.spark", "spark"):
        from pyspark.sql.pandas.types import from_arrow_schema
    options = options or PartitionOptions()
    return frame.mapInArrow(
        functools.partial(_batches, options=options), from_arrow_schema(partition_schema(options))
    )


def _batches(batches: Iterator[pa.RecordBatch], options: PartitionOptions) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield classify_partition(batch, options)
