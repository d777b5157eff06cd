"""Classifies photos in a Ray Data pipeline of one's own.

    import ray
    from cascade.ray import Classifier

    photos = ray.data.from_items([{"path": "s3://bucket/a.jpg"}, {"path": "s3://bucket/b.jpg"}])
    rows = photos.map_batches(
        Classifier,
        fn_constructor_kwargs={"max_error": 0.05},
        batch_format="pyarrow",
        batch_size=256,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=8),
    )

Rows of paths are better than `ray.data.read_images`, which looks at every file before the first is classified
and sends pixels through Ray's memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade.cluster.options import PartitionOptions
from cascade.cluster.partition import classify_partition, open_worker

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Classifier"]


class Classifier:
    """A callable class for `ray.data.Dataset.map_batches`; the bundle is opened once in each worker process.

    Args:
        options: the same as one value; None takes the keyword arguments.
        **given: fields of `cascade.cluster.PartitionOptions`.

    Raises:
        BundleError: when the bundle is missing or damaged on this worker.
        UsageError: when an option makes no sense.
    """

    def __init__(self, options: PartitionOptions | None = None, **given: Any) -> None:
        self._options = options or PartitionOptions(**given)
        open_worker(self._options)  # noticed when the worker starts, not with its first batch

    def __call__(self, batch: Any) -> pa.Table:
        """Classify a batch in any of Ray's formats; see `cascade.cluster.classify_partition`."""
        import pyarrow as pa

        if isinstance(batch, dict):  # batch_format="numpy", the default
            batch = pa.table({name: list(column) for name, column in batch.items()})
        elif not isinstance(batch, pa.Table):
            batch = pa.Table.from_pandas(batch, preserve_index=False)
        return classify_partition(batch, self._options)
