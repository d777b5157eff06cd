"""Runs `cascade classify --engine ray`: the same rows as on one machine, in one Parquet file a part."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from cascade.bundle.manifest import BUNDLE_ENVIRONMENT_VARIABLE
from cascade.classifier import Cascade
from cascade.cluster import PartitionOptions
from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.part import PartTask
from cascade.cluster.ray_engine import connected, run_parts
from cascade.cluster.run import ClusterRun
from cascade.cluster.run_folder import begin
from cascade.errors import MissingExtraError, UsageError
from cascade.imaging.files import FindOptions, Found, printable
from cascade.imaging.path_list import read_list
from cascade.imaging.recognition import is_named_like_an_archive
from cascade.prediction import ErrorInfo
from cascade.runs.interrupt import Interrupt
from cascade.runs.options import ClassifyOptions
from cascade.runs.progress import Progress
from cascade.runs.rows import bundle_hash
from cascade.runs.summary import Summary
from cascade.storage.fetching import is_url

__all__ = ["classify_on_cluster"]

_PART_SIZE: Final = 2000
_ARCHIVES: Final = "tar archives and Parquet files with photos"


def classify_on_cluster(options: ClassifyOptions, find: FindOptions, cascade: Cascade) -> int:
    """Run the command; returns its exit code.

    Args:
        options: of the command.
        find: what is looked at.
        cascade: opened with the options; it says which variant runs, and that the options make sense.
    """
    try:
        import pyarrow  # noqa: F401
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    archive = next((path for path in options.paths if is_named_like_an_archive(path)), None)
    if archive is not None:
        raise UsageError(
            f"{archive}: --engine ray does not read {_ARCHIVES}; leave out --engine to read it on this "
            "machine (docs/archives.md), or have Ray Data read it and give the bytes to "
            "cascade.ray.Classifier (docs/clusters.md)"
        )
    output = OutputFolder(options.output if is_url(options.output) else str(Path(options.output).resolve()))
    task = PartTask(
        folder=output.url,
        options=_partition_options(options, cascade),
        home=None if all(map(is_url, options.paths)) else str(Path.cwd()),
        run=secrets.token_hex(8),
    )
    size = options.part_size or _PART_SIZE
    fingerprint = options.fingerprint(
        bundle_hash(cascade.bundle), task.options.chosen_fields(), cascade.variant
    )
    fingerprint |= {"PATH": " ".join(map(printable, options.paths)), "--part-size": str(size)}
    with begin(output, fingerprint, resume=options.resume, restart=options.restart):
        return _run(options, find, output, task, size)


def _run(options: ClassifyOptions, find: FindOptions, output: OutputFolder, task: PartTask, size: int) -> int:
    stop: list[Interrupt] = []

    def stopped() -> bool:
        return bool(stop) and stop[0].stopped

    run = ClusterRun(
        output,
        task,
        _listed(options, stopped) if options.from_list else options.paths,
        find=find,
        part_size=size,
        stopped=stopped,
    )
    summary, started = Summary(), time.perf_counter()
    progress = Progress(quiet=options.quiet, count=run.photos_to_do)
    with connected(options.ray_address, options.workers) as workers:
        # Entered behind Ray, which takes the signals when it starts.
        with Interrupt(_say_stopping, progress.stop) as interrupt, progress:
            stop.append(interrupt)
            for counts in run.run(lambda task, done: run_parts(task, done, workers)):
                summary.merge(counts)
                progress.advance(failed=sum(counts["errors"].values()), rows=counts["photos"])
        seconds = time.perf_counter() - started
    summary.already_done = run.photos_done_before()
    if not options.quiet:
        for line in summary.lines(seconds, run.left_out):
            click.echo(line, err=True)
    if interrupt.stopped:
        click.echo("cascade: stopped; give the same command with --resume to go on", err=True)
        return interrupt.exit_code
    return int(any(part["errors"] for part in run.manifest()))


def _listed(options: ClassifyOptions, stopped: Callable[[], bool]) -> Iterator[Found]:
    """Yield the photos of the list on standard input; an archive in it is a row that says so."""
    why = ErrorInfo("unsupported", f"--engine ray does not read {_ARCHIVES}; see docs/archives.md")
    for found in read_list(sys.stdin.buffer, null=options.null, stopped=stopped):
        yield replace(found, error=why) if is_named_like_an_archive(found.path) else found


def _say_stopping() -> None:
    click.echo("cascade: finishing the parts in work; Ctrl-C again stops at once", err=True)


def _partition_options(options: ClassifyOptions, cascade: Cascade) -> PartitionOptions:
    # The shipped bundle may be installed elsewhere on another machine; one that the user names is there too.
    named = options.bundle is not None or os.environ.get(BUNDLE_ENVIRONMENT_VARIABLE)
    return PartitionOptions(
        bundle=str(cascade.bundle.folder.resolve()) if named else None,
        bundle_sha256=bundle_hash(cascade.bundle),
        operating_point=options.operating_point,
        max_error=options.max_error,
        budget=options.budget,
        label_set=options.label_set,
        top_k=options.top_k,
        ask=options.ask,
        variant=cascade.variant,
        max_pixels=options.max_pixels,
        explain=options.explain,
        fields=options.fields,
    )
