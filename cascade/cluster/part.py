"""Classifies one part of a cluster run and writes its rows as one Parquet file; any engine may call it.

The file is written whole, under its name, when every photo has its row: a part that is there is finished, and
a part that was cut off leaves nothing. Its metadata says what it amounted to, so no second file is needed.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cascade import __version__
from cascade.bundle.manifest import find_bundle
from cascade.cluster.options import PartitionOptions
from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.part_guard import PartGuard
from cascade.cluster.partition import Photo, Worker, open_worker
from cascade.cluster.plan import Plan, part_name
from cascade.errors import BundleError, ImageError, OutputError, UsageError
from cascade.imaging.files import Found, readable
from cascade.runs.arrow_rows import arrow_table
from cascade.runs.rows import Row
from cascade.runs.summary import Summary

__all__ = ["RUN_FILE", "STOP_FILE", "PartTask", "classify_part", "part_counts", "part_numbers"]

#: What the run was started with; a worker that does not see it looks at another folder.
RUN_FILE: Final = "_cascade/run.json"
#: While it is there, no part is begun.
STOP_FILE: Final = "_cascade/stop"
#: Metadata of a part's file: what it amounted to.
_COUNTS: Final = b"cascade.part"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """What a worker must know besides the number of a part; plain values, so that engines can send it.

    Attributes:
        folder: of the run: a path or a URL that every worker reaches.
        options: how photos are classified.
        home: folder from which relative paths count; None if photos are not in files.
        run: different for every start of the command.
        version: of cascade, where the run was started.
    """

    folder: str
    options: PartitionOptions
    home: str | None
    run: str
    version: str = __version__


def classify_part(task: PartTask, number: int) -> dict[str, Any]:
    """Classify a part, write its file and return its counts; one that has a file is not done again.

    Returns:
        ``part``, the counts of `cascade.runs.summary.Summary.counts`, the paths of the ``first`` and ``last``
        photo, ``seconds``, and where it was done: ``node``, ``pid`` and ``rss_mb``, the memory that the
        process uses. Only ``part`` and ``stopped`` if the run is to end.

    Raises:
        UsageError: when this worker has another version of cascade.
        OutputError: when it does not see the folder of the run, or cannot write there.
        BundleError: when it has no such bundle, or another one.
    """
    folder = OutputFolder(task.folder)
    _check_place(task, folder)
    if folder.exists(STOP_FILE):
        return {"part": number, "stopped": True}
    if (counts := part_counts(folder, number)) is not None:
        return counts
    started = time.perf_counter()
    worker = _open_worker(task.options)
    guard = PartGuard(folder, number, task.run)
    found = Plan(folder).photos(number)
    summary, rows = Summary(), []
    for row in _rows(worker, found, guard):
        summary.add(row)
        rows.append(row)
    seconds = time.perf_counter() - started
    counts = {
        "part": number,
        **summary.counts(),
        "first": readable(found[0].path),
        "last": readable(found[-1].path),
        "seconds": round(seconds, 3),
        "node": socket.gethostname(),
        "pid": os.getpid(),
        "rss_mb": _memory_mb(),
    }
    folder.write(part_name(number), _content(worker, rows, counts))
    guard.done()
    return counts


def part_numbers(url: str, done: Collection[int], look: float = 0.5) -> Iterator[int]:
    """Yield the number of every part that is to be classified, while the listing goes on.

    What is left out is fixed by the caller, so a second call yields the same numbers again: Ray needs that
    when it repeats a task whose machine is gone.

    Args:
        url: folder of the run.
        done: numbers of parts that have their rows.
        look: seconds between two looks for new parts.
    """
    folder = OutputFolder(url)
    plan, number = Plan(folder), 0
    while True:
        while number in done:
            number += 1
        if folder.exists(STOP_FILE):
            return
        if not plan.has(number):
            totals = plan.totals()
            if totals is None:
                time.sleep(look)
                continue
            if number >= totals.parts:
                return
        yield number  # also one whose plan was removed: classifying it says so
        number += 1


def part_counts(folder: OutputFolder, number: int) -> dict[str, Any] | None:
    """Return what a finished part amounted to, from its file; None if it is not finished."""
    import pyarrow.parquet as pq

    if (file := folder.open(part_name(number))) is None:
        return None
    with file:
        metadata = pq.read_schema(file).metadata or {}
    counts: dict[str, Any] = json.loads(metadata[_COUNTS])
    return counts


def _check_place(task: PartTask, folder: OutputFolder) -> None:
    if task.version != __version__:
        raise UsageError(
            f"this worker, {socket.gethostname()}, has cascade {__version__}, and the run was started with "
            f"{task.version}; install the same version on every machine"
        )
    if task.home is not None and Path.cwd() != Path(task.home):
        try:
            os.chdir(task.home)
        except OSError as error:
            raise UsageError(
                f"this worker, {socket.gethostname()}, has no folder {task.home}, where the photos are "
                "looked for; give a folder that every machine sees under the same name, or a URL"
            ) from error
    if not folder.exists(RUN_FILE):
        raise OutputError(
            f"{task.folder}: {socket.gethostname()} does not see the output of this run there; give --output "
            "a folder that every machine sees under the same name, or a URL such as s3://bucket/rows"
        )


def _open_worker(options: PartitionOptions) -> Worker:
    host = socket.gethostname()
    try:
        if options.bundle is not None:
            find_bundle(options.bundle)
    except BundleError as error:
        raise BundleError(
            f"{options.bundle}: this worker, {host}, has no bundle there; copy the bundle to the same path "
            "on every machine, or give --bundle a folder that every machine sees under the same name. The "
            "shipped bundle needs neither: it comes with the package"
        ) from error
    try:
        return open_worker(options)
    except BundleError as error:
        raise BundleError(f"worker {host}: {error}") from error


def _rows(worker: Worker, found: list[Found], guard: PartGuard) -> Iterator[Row]:
    photos = map(_photo, found)
    if not guard.suspicious:
        return worker.rows(photos)
    return worker.rows(guard.watch(photos), alone=True)


def _photo(found: Found) -> Photo:
    if found.error is None:
        return Photo(found.path)
    return Photo(found.path, error=ImageError(found.error.code, found.error.message))


def _content(worker: Worker, rows: list[Row], counts: dict[str, Any]) -> bytes:
    import pyarrow.parquet as pq

    table = arrow_table(rows, worker.fields, worker.schema)
    metadata = {**table.schema.metadata, _COUNTS: json.dumps(counts)}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")
    return file.getvalue()


def _memory_mb() -> float | None:
    """Return the memory that this process uses now, in MB; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
    except (OSError, ValueError, IndexError):
        return None
