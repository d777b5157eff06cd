"""Classifies the parts of a plan on Ray Data, here or on a cluster."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from cascade.cluster.part import PartTask, classify_part, part_numbers
from cascade.errors import BundleError, CascadeError, MissingExtraError, OutputError, UsageError
from cascade.inference.cpu import usable_cores

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["connected", "run_parts"]

#: Photos do not pass through Ray's shared memory, only numbers of parts and their counts do.
_OBJECT_STORE_BYTES: Final = 150 << 20
#: Set unless the user has: no statistics are sent, and Ray's own remarks do not run through the progress.
_ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[int]:
    """Start Ray on this machine, or connect to a cluster; yields the number of worker processes to use.

    Args:
        address: of a cluster; None starts Ray here and ends it afterwards.
        workers: None takes one for each CPU.

    Raises:
        MissingExtraError: when Ray is not installed.
        UsageError: when there is no such cluster.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        cores = workers or usable_cores()
        ray.init(num_cpus=cores, object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            text = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UsageError(
                f"--ray-address {address}: cannot be reached ({text}); give HOST:PORT of the head node, or "
                "auto on one of the cluster's machines"
            ) from error
    try:
        yield workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


def run_parts(task: PartTask, done: frozenset[int], workers: int) -> Iterator[dict[str, Any]]:
    """Classify every part that is not done and yield what `classify_part` returns, in the order of their end.

    Parts are taken as the listing makes them. A worker that dies is replaced, and its part begun again.

    Args:
        task: for the workers.
        done: numbers of parts that have their rows.
        workers: number of processes.

    Raises:
        CascadeError: what a worker raised.
    """
    import pyarrow as pa
    import ray

    with _settings(ray.data.DataContext.get_current()):
        # No read task stands at the beginning: it would wait for a core that a worker has.
        parts = ray.data.from_arrow(pa.table({"start": [0]})).map_batches(
            _numbers, fn_args=(task.folder, done), num_cpus=0, batch_format="pyarrow"
        )
        counts = parts.map_batches(
            _PartWorker,
            fn_constructor_args=(task,),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        )
        for row in counts.iter_rows():
            told = json.loads(row["told"])
            if "error" in told:
                raise _raised(told["error"], told["message"])
            yield told


class _PartWorker:
    """Classifies one part a call; Ray makes one of these in each worker process."""

    def __init__(self, task: PartTask) -> None:
        self._task = task

    def __call__(self, batch: pa.Table) -> dict[str, list[str]]:
        # As JSON: Arrow would give every part the labels of all others.
        return {"told": [json.dumps(self._tell(number)) for number in batch["part"].to_pylist()]}

    def _tell(self, number: int) -> dict[str, Any]:
        """Return the counts of a part, or what was wrong: Ray would send an exception without its kind."""
        try:
            return classify_part(self._task, number)
        except CascadeError as error:
            return {"part": number, "error": type(error).__name__, "message": str(error)}


def _numbers(start: pa.Table, url: str, done: frozenset[int]) -> Iterator[pa.Table]:
    """Yield the number of every part, one a block."""
    import pyarrow as pa

    for number in part_numbers(url, done):
        yield pa.table({"part": [number]})


@contextmanager
def _settings(context: Any) -> Iterator[None]:
    """Set what a run needs, and set it back: the context is shared by the whole process."""
    wanted = {
        "target_max_block_size": 1,  # one part a block: a worker takes a block
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    for name in before:
        setattr(context, name, wanted[name])
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


def _raised(kind: str, message: str) -> CascadeError:
    """Return what a worker raised on purpose."""
    known = {one.__name__: one for one in (BundleError, OutputError, UsageError)}
    return known.get(kind, CascadeError)(message)
