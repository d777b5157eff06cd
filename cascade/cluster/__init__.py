"""Classifies archives that outgrow one machine: the same rows, on an engine that is there already."""

from cascade.cluster.options import PartitionOptions
from cascade.cluster.partition import classify_partition, partition_schema

__all__ = ["PartitionOptions", "classify_partition", "partition_schema"]
