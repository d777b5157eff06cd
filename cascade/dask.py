"""Classifies photos in a Dask DataFrame.

    import dask.dataframe as dd
    from cascade.dask import classify

    rows = classify(dd.read_parquet("s3://bucket/paths", columns=["path"]))
    rows.to_parquet("s3://bucket/answers")

Workers of one thread each are fastest: ``Client(n_workers=16, threads_per_worker=1)``, or
``scheduler="processes"`` on one machine.
"""

from __future__ import annotations

import functools
from typing import Any

from cascade.cluster.options import PartitionOptions
from cascade.cluster.partition import classify_partition, partition_schema

__all__ = ["classify"]


def classify(frame: Any, options: PartitionOptions | None = None) -> Any:
    """Classify the rows of a `dask.dataframe.DataFrame`, lazily; each worker process opens the bundle once.

    Args:
        frame: with the columns that ``options`` name; others are passed over. Its index is not kept.
        options: None takes the defaults.

    Returns:
        A Dask DataFrame with the columns of `cascade.cluster.partition_schema` in Arrow types, a row for
        each row.

    Raises:
        MissingExtraError: when pyarrow is not installed.
    """
    options = options or PartitionOptions()
    meta = _to_pandas(partition_schema(options).empty_table())
    return frame.map_partitions(functools.partial(_classify, options=options), meta=meta)


def _classify(part: Any, options: PartitionOptions) -> Any:
    import pyarrow as pa

    return _to_pandas(classify_partition(pa.Table.from_pandas(part, preserve_index=False), options))


def _to_pandas(table: Any) -> Any:
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)
