"""Runs `cascade classify`: one row for each photo, and what was asked to be done with them."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click

from cascade.classifier import Cascade
from cascade.cli.options import command, model_options, quiet_option
from cascade.errors import UsageError
from cascade.imaging.decoding import MAX_PIXELS
from cascade.imaging.files import FindOptions, Found, find_photos, printable, read_list
from cascade.runs.crash_guard import CrashGuard
from cascade.runs.dry_run import dry_run
from cascade.runs.durable_output import Store, open_store
from cascade.runs.folder_run import FolderRun
from cascade.runs.interrupt import Interrupt
from cascade.runs.options import ClassifyOptions
from cascade.runs.progress import Progress
from cascade.runs.rows import FIELDS, Row, bundle_hash, bundle_id, choose_fields
from cascade.runs.sidecar import SidecarWriter
from cascade.runs.sorting import SORT_MODES, plan_sorting, sort_photos
from cascade.runs.writers import FORMATS, make_format, write_json

__all__ = ["classify"]

#: Where a photo was passed over because it is reached by a link.
_LINKS_ADVICE = "give --follow-links to follow links out of the folder"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that are only this command's, grouped by what they are about."""
    decorators = (
        # what is written
        click.option(
            "-f",
            "--format",
            "format_name",
            type=click.Choice(FORMATS),
            help="How rows are written.  [default: by the ending of --output, else table]",
        ),
        click.option(
            "-o",
            "--output",
            metavar="FILE",
            type=click.Path(dir_okay=False, allow_dash=True),
            default="-",
            help="Where rows are written; - is standard output. An existing file is never overwritten.",
        ),
        click.option(
            "--fields", metavar="A,B,...", help=f"Only these keys, in this order: {', '.join(FIELDS)}."
        ),
        click.option("--explain", is_flag=True, help="Show how each answer came about."),
        # how photos are classified
        model_options,
        click.option(
            "--label-set",
            metavar="SHARE",
            type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
            help="Also list labels that contain the right one with this probability, e.g. 0.95.",
        ),
        click.option(
            "--max-pixels",
            metavar="N",
            type=click.IntRange(min=1),
            default=MAX_PIXELS,
            show_default=True,
            help="Photos with more pixels become rows with an error.",
        ),
        # runs that are continued
        click.option(
            "--resume", is_flag=True, help="Continue the run that wrote --output; simply begin if none did."
        ),
        click.option(
            "--retry-failed", is_flag=True, help="With --resume: read photos again whose row is an error."
        ),
        click.option(
            "--restart", is_flag=True, help="Begin again in place of what a run of cascade wrote to --output."
        ),
        click.option(
            "--dry-run", is_flag=True, help="Say what would be read and written, and do nothing of it."
        ),
        click.option(
            "--by-content",
            is_flag=True,
            help="Know photos by their content, not by path, size and time: copies are classified once.",
        ),
        click.option(
            "--watch",
            is_flag=True,
            help="Go on with photos that arrive, until Ctrl-C.  Needs: pip install 'cascade-vision[watch]'",
        ),
        # which files
        click.option(
            "-0", "--null", is_flag=True, help="Paths on standard input end with NUL (find -print0)."
        ),
        click.option(
            "--follow-links", is_flag=True, help="Follow links out of the folders, and links to folders."
        ),
        click.option("--hidden", is_flag=True, help="Also look at names that begin with a dot."),
        # what is done with the answers
        click.option(
            "--gallery",
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write an HTML page with all photos, by label, doubtful ones first; several pages for many.",
        ),
        click.option(
            "--sort-into",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Put photos into DIR/LABEL. Shows the plan first; `cascade undo` takes it back.",
        ),
        click.option(
            "--sort-mode",
            type=click.Choice(SORT_MODES),
            default="link",
            show_default=True,
            help="How --sort-into puts them there.",
        ),
        click.option("--yes", is_flag=True, help="Carry out --sort-into without asking."),
        click.option(
            "--write-xmp", is_flag=True, help="Write labels as keywords into side-car files, PHOTO.xmp."
        ),
        quiet_option,
        click.option(
            "-v", "--verbose", count=True, help="Log what happens on standard error; twice: in detail."
        ),
    )
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


@command
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(allow_dash=True))
@_options
def classify(**given: Any) -> int:
    """Classify photos: files, folders (recursively), or - for a list of paths on standard input.

    Every photo becomes one row, also one that cannot be read; its row says why. A run with --output that was
    stopped, by whatever, goes on where it was when the same command is given with --resume.
    """
    options = ClassifyOptions(**given)
    if options.verbose:
        level = logging.DEBUG if options.verbose > 1 else logging.INFO
        logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return _classify(options)


def _classify(options: ClassifyOptions) -> int:
    options.check_targets()
    find = FindOptions(follow_links=options.follow_links, hidden=options.hidden)
    stop: list[Interrupt] = []
    batches = _batches(options, find, lambda: bool(stop) and stop[0].stopped)
    cascade = Cascade(
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
    name = bundle_id(cascade.bundle, cascade.variant)
    if options.dry_run:
        for line in dry_run(options, _facts(options, cascade), batches, find):
            click.echo(line)
        return 0
    store = _open_store(options, cascade, name)
    _say_old_errors(options, store)
    progress = _progress(options, find)
    sidecars = SidecarWriter()
    started = time.perf_counter()

    def say_stopping() -> None:
        click.echo("cascade: finishing the photos in work; Ctrl-C again stops at once", err=True)

    with closing(store), Interrupt(say_stopping, progress.stop) as interrupt:
        stop.append(interrupt)
        with progress, CrashGuard(options.output_path, store.journal) as guard:
            summary = FolderRun(
                cascade,
                store,
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
        if not interrupt.stopped or options.watch:
            store.finish()
            _use_rows(options, cascade, store, name)
        else:
            store.end_text()
        failed = store.journal.failed() if store.journal is not None else summary.failed
    if not options.quiet and (summary.photos > 1 or summary.already_done):
        for line in summary.lines(seconds, find.left_out):
            click.echo(line, err=True)
    if options.write_xmp and not options.quiet:
        counts = ", ".join(f"{what} {number:,}" for what, number in sorted(sidecars.counts.items()))
        click.echo(f"side-cars: {counts or 'none needed'}", err=True)
    if interrupt.stopped and not options.watch:
        if options.output_path is not None:
            click.echo("cascade: stopped; give the same command with --resume to go on", err=True)
        return interrupt.exit_code
    return 1 if failed else 0


def _batches(
    options: ClassifyOptions, find: FindOptions, stopped: Callable[[], bool]
) -> Iterable[Iterable[Found]]:
    """Return what is to be classified; at least one photo, so that nothing is created for an empty folder."""
    if options.watch:
        from cascade.runs.watch import watch_batches

        find_photos(options.paths, find)  # refuses what does not exist
        return watch_batches(options.paths, find, stopped)
    if options.from_list:
        found = read_list(sys.stdin.buffer, null=options.null, stopped=stopped)
        nothing = "the list on standard input is empty"
    else:
        found = find_photos(options.paths, find)
        names = ", ".join(map(printable, options.paths))
        nothing = f"{names}: holds no photos; give a folder that does, or files"
    first = next(found, None)
    if first is None:
        passed = ", ".join(f"{what} {number:,}" for what, number in find.left_out.items())
        advice = f"; {_LINKS_ADVICE}" if find.left_out["links"] else ""
        raise UsageError(nothing + (f" (passed over: {passed}{advice})" if passed else ""))
    return [itertools.chain([first], found)]


def _say_old_errors(options: ClassifyOptions, store: Store) -> None:
    """Say which photos of earlier runs have no answer, and what is done about them."""
    errors = store.journal.errors() if options.resume and store.journal is not None else None
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
    return options.facts(bundle_hash(cascade.bundle), _fields(options), cascade.variant)


def _open_store(options: ClassifyOptions, cascade: Cascade, name: str) -> Store:
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
    return open_store(
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
    unknowable = options.from_list or options.watch
    count = None if unknowable else lambda: sum(1 for _ in find_photos(options.paths, find.uncounted()))
    return Progress(quiet=hidden, count=count)


def _use_rows(options: ClassifyOptions, cascade: Cascade, store: Store, name: str) -> None:
    """Do what was asked for with the rows of the whole run."""
    journal = store.journal
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
