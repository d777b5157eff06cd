"""Runs `cascade classify`: one row for each photo, and what was asked to be done with them."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import click

from cascade.classifier import Cascade
from cascade.cli.classify_options import classify_options
from cascade.cli.options import command
from cascade.errors import UsageError
from cascade.imaging.files import FindOptions, Found, find_photos, printable
from cascade.runs.crash_guard import CrashGuard
from cascade.runs.dry_run import dry_run
from cascade.runs.durable_output import DurableOutput, open_output
from cascade.runs.folder_run import FolderRun
from cascade.runs.interrupt import Interrupt
from cascade.runs.options import LOCAL, ClassifyOptions
from cascade.runs.progress import Progress
from cascade.runs.rows import Row, bundle_hash, bundle_id, choose_fields
from cascade.runs.sidecar import SidecarWriter
from cascade.runs.sorting import plan_sorting, sort_photos
from cascade.runs.writers import make_format, write_json
from cascade.storage.sources import is_local, photos_of, photos_of_list

__all__ = ["classify"]

#: Where a photo was passed over because it is reached by a link.
_LINKS_ADVICE = "give --follow-links to follow links out of the folder"
#: Where photos may be in archives.
_ARCHIVES_ADVICE = "give --archives to look into tar archives and Parquet files"


@command
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(allow_dash=True))
@classify_options
def classify(**given: Any) -> int:
    """Classify photos: files, folders (recursively), or - for a list of paths on standard input.

    Photos may also be in an object store (s3://BUCKET/PREFIX, gs:// and other URLs that fsspec opens), in tar
    archives (.tar, .tar.gz), and in Parquet files that hold their bytes. They are read as they come.

    Every photo becomes one row, also one that cannot be read; its row says why. A run with --output that was
    stopped, by whatever, goes on where it was when the same command is given with --resume.
    """
    options = ClassifyOptions(**given)
    if options.verbose:
        level = logging.DEBUG if options.verbose > 1 else logging.INFO
        logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return _classify(options)


def _classify(options: ClassifyOptions) -> int:
    """Run the command; returns its exit code."""
    options.check_targets()
    find = FindOptions(
        follow_links=options.follow_links,
        hidden=options.hidden,
        archives=options.archives,
        image_column=options.image_column,
    )
    if options.engine != LOCAL:
        from cascade.cli.classify_cluster import classify_on_cluster

        return classify_on_cluster(options, find, _load_cascade(options))
    stop: list[Interrupt] = []
    batches = _batches(options, find, lambda: bool(stop) and stop[0].stopped)
    cascade = _load_cascade(options)
    name = bundle_id(cascade.bundle, cascade.variant)
    if options.dry_run:
        for line in dry_run(options, _facts(options, cascade), batches, find):
            click.echo(line)
        return 0
    progress = _progress(options, find)
    sidecars = SidecarWriter()
    with Interrupt(_say_stopping, progress.stop) as interrupt, ExitStack() as stack:
        stop.append(interrupt)
        # Only now: who sees the output can end the run in an orderly way.
        output = stack.enter_context(closing(_open_output(options, cascade, name)))
        _say_old_errors(options, output)
        started = time.perf_counter()
        with progress, CrashGuard(options.output_path, output.journal) as guard:
            summary = FolderRun(
                cascade,
                output,
                name,
                options.by_content,
                lambda: interrupt.stopped,
                progress,
                (sidecars,) if options.write_xmp else (),
                guard,
                options.retry_failed,
            ).run(batches)
        seconds = time.perf_counter() - started
        # Watching has no other end than Ctrl-C; everything else is incomplete after it.
        incomplete = interrupt.stopped and not options.watch
        if incomplete:
            output.end_text()
        else:
            output.finish()
            _use_rows(options, cascade, output, name)
        failed = output.journal.failed() if output.journal is not None else summary.failed
    if summary.photos > 1 or summary.already_done:
        for line in summary.lines(seconds, find.left_out):
            _say(options, line)
    if options.write_xmp:
        counts = ", ".join(f"{what} {number:,}" for what, number in sorted(sidecars.counts.items()))
        _say(options, f"side-cars: {counts or 'none needed'}")
    if incomplete and options.output_path is not None:
        click.echo("cascade: stopped; give the same command with --resume to go on", err=True)
    return interrupt.exit_code if incomplete else int(failed > 0)


def _load_cascade(options: ClassifyOptions) -> Cascade:
    return Cascade(
        options.bundle,
        operating_point=options.operating_point,
        label_set=options.label_set,
        max_error=options.max_error,
        budget=options.budget,
        top_k=options.top_k,
        ask=options.ask,
        workers=options.workers,
        max_pixels=options.max_pixels,
        variant=options.variant,
    )


def _say_stopping() -> None:
    click.echo("cascade: finishing the photos in work; Ctrl-C again stops at once", err=True)


def _batches(
    options: ClassifyOptions, find: FindOptions, stopped: Callable[[], bool]
) -> Iterable[Iterable[Found]]:
    """Return what is to be classified; at least one photo, so that nothing is created for an empty folder."""
    if options.watch:
        from cascade.runs.watch import watch_batches

        find_photos(options.paths, find)  # refuses what does not exist
        return watch_batches(options.paths, find, stopped)
    if options.from_list:
        found = photos_of_list(
            sys.stdin.buffer, find, null=options.null, stopped=stopped, local_only=options.local_only
        )
        nothing = "the list on standard input is empty"
    else:
        found = photos_of(options.paths, find)
        names = ", ".join(map(printable, options.paths))
        nothing = f"{names}: holds no photos; give a folder that does, or files"
    first = next(found, None)
    if first is None:
        passed = ", ".join(f"{what} {number:,}" for what, number in find.left_out.items())
        advice = f"; {_LINKS_ADVICE}" if find.left_out["links"] else ""
        advice += f"; {_ARCHIVES_ADVICE}" if find.left_out["archives"] else ""
        raise UsageError(nothing + (f" (passed over: {passed}{advice})" if passed else ""))
    return [itertools.chain([first], found)]


def _say_old_errors(options: ClassifyOptions, output: DurableOutput) -> None:
    """Say which photos of earlier runs have no answer, and what is done about them."""
    errors = output.journal.errors() if options.resume and output.journal is not None else None
    if errors:
        listed = ", ".join(f"{code} {number:,}" for code, number in sorted(errors.items()))
        _say(
            options,
            f"{errors.total():,} photos failed in earlier runs ({listed}); "
            + ("they are read again" if options.retry_failed else "--retry-failed reads them again"),
        )


def _fields(options: ClassifyOptions) -> tuple[str, ...]:
    return choose_fields(
        options.fields,
        explain=options.explain,
        columns=options.row_format in ("csv", "parquet"),
        also=() if options.label_set is None else ("label_set",),
    )


def _facts(options: ClassifyOptions, cascade: Cascade) -> dict[str, str]:
    return options.fingerprint(bundle_hash(cascade.bundle), _fields(options), cascade.variant)


def _open_output(options: ClassifyOptions, cascade: Cascade, name: str) -> DurableOutput:
    kind, tree = options.row_format, cascade.bundle.tree
    sha256 = bundle_hash(cascade.bundle)
    fields = _fields(options)
    whole: Callable[[Path, Iterator[Row]], None] | None = None
    text = None
    if kind == "parquet":
        from cascade.runs.parquet import ParquetWriter

        whole = ParquetWriter(fields, name, sha256)
    elif kind == "json" and options.output_path is not None:
        whole = partial(write_json, fields)
    else:
        labels = (*tree.labels, *tree.parents)
        text = make_format(kind, fields, explain=options.explain, labels=labels, bundle=name)
    return open_output(
        options.output_path,
        text,
        _facts(options, cascade),
        resume=options.resume,
        restart=options.restart,
        remember=options.by_content or options.needs_all_rows or options.watch,
        whole=whole,
    )


def _progress(options: ClassifyOptions, find: FindOptions) -> Progress:
    # Rows that go to the terminal show how far the run is; a bar would run through them.
    hidden = options.quiet or (options.output_path is None and sys.stdout.isatty())
    # Listing a bucket twice costs money, and reading an archive twice time.
    cheap = all(map(is_local, options.paths)) and not options.archives
    unknowable = options.from_list or options.watch or not cheap
    count = None if unknowable else lambda: sum(1 for _ in find_photos(options.paths, find.uncounted()))
    return Progress(quiet=hidden, count=count)


def _use_rows(options: ClassifyOptions, cascade: Cascade, output: DurableOutput, name: str) -> None:
    """Do what was asked for with the rows of the whole run."""
    journal = output.journal
    if options.gallery is not None and journal is not None:
        from cascade.runs.gallery.plan import pages_folder
        from cascade.runs.gallery.write import write_gallery

        count = len(journal)
        with Progress(quiet=options.quiet, count=lambda: count) as progress:
            pages = write_gallery(
                options.gallery,
                journal.rows(),
                cascade.bundle.tree,
                name,
                max_pixels=options.max_pixels,
                workers=cascade.workers,
                advance=lambda: progress.advance(failed=False),
            )
        beside = f" ({pages:,} pages in {pages_folder(options.gallery)})" if pages else ""
        _say(options, f"gallery: {options.gallery}{beside}")
    if options.sort_into is not None and journal is not None:
        _sort(options, options.sort_into, journal.rows)


def _sort(options: ClassifyOptions, target: Path, rows: Callable[[], Iterator[Row]]) -> None:
    plan = plan_sorting(rows())
    # The plan is shown even with --quiet: it is what was asked for.
    for folder, number in sorted(plan.items()):
        click.echo(f"{options.sort_mode} {number:,} into {target / folder}", err=True)
    if not options.yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            click.echo("nothing was touched; give the same command with --yes to do this", err=True)
            return
        if not click.confirm("Do this?", err=True):
            return
    undo, counts = sort_photos(rows(), target, options.sort_mode)
    done = ", ".join(f"{what} {number:,}" for what, number in sorted(counts.items()))
    if undo is None:
        _say(options, f"{done or 'no photo has an answer'}; there was nothing to do")
    else:
        _say(options, f"{done}; take it back with: cascade undo {undo}")


def _say(options: ClassifyOptions, text: str) -> None:
    if not options.quiet:
        click.echo(text, err=True)
