"""`cascade classify`: the main job. In: photos, folders, or a list of them. Out: one row for each photo."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cascade.classifier import Cascade
from cascade.commands.options import model_options, quiet_option
from cascade.errors import UsageError
from cascade.files import FindOptions, Found, find_photos, printable, read_list
from cascade.images import MAX_PIXELS
from cascade.output import FORMATS, make_format
from cascade.rows import FIELDS, bundle_hash, bundle_id, choose_fields
from cascade.runs.folder_run import FolderRun
from cascade.runs.interrupt import Interrupt
from cascade.runs.progress import Progress
from cascade.runs.store import open_store

__all__ = ["classify"]

_SUFFIX_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "table",
}


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(allow_dash=True))
@click.option(
    "-f",
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="How rows are written.  [default: by the ending of --output, else table]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="Where rows are written; - is standard output. An existing file is never overwritten.",
)
@click.option("--fields", metavar="A,B,...", help=f"Only these keys, in this order: {','.join(FIELDS)}.")
@click.option("--explain", is_flag=True, help="Show how each answer came about.")
@model_options
@click.option(
    "--max-pixels",
    metavar="N",
    type=click.IntRange(min=1),
    default=MAX_PIXELS,
    show_default=True,
    help="Photos with more pixels become rows with an error.",
)
@click.option(
    "--resume", is_flag=True, help="Continue the run that wrote --output; simply begin if there is none."
)
@click.option("--restart", is_flag=True, help="Delete --output and begin again.")
@click.option(
    "--by-content", is_flag=True, help="Know photos by their content: identical ones are classified once."
)
@click.option(
    "-0", "--null", is_flag=True, help="The list on standard input is separated by NUL, not by lines."
)
@click.option("--follow-links", is_flag=True, help="Follow links out of the folders, and links to folders.")
@click.option("--hidden", is_flag=True, help="Also look at names that begin with a dot.")
@quiet_option
@click.option("-v", "--verbose", count=True, help="Log what happens on standard error; twice: in detail.")
def classify(**given: Any) -> int:
    """Classify photos: files, folders (recursively), or - for a list of paths on standard input."""
    options = Options(**given)
    if options.verbose:
        level = logging.DEBUG if options.verbose > 1 else logging.INFO
        logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return _classify(options)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `cascade classify`, as --help describes them.

    Raises:
        UsageError: when they contradict each other.
    """

    paths: tuple[str, ...]
    format_name: str | None
    output: str
    fields: str | None
    explain: bool
    bundle: Path | None
    ask: str
    operating_point: str
    top_k: int
    workers: int | None
    max_pixels: int
    resume: bool
    restart: bool
    by_content: bool
    null: bool
    follow_links: bool
    hidden: bool
    quiet: bool
    verbose: int

    def __post_init__(self) -> None:
        if self.resume and self.restart:
            raise UsageError("--resume continues and --restart begins again; give one of them")
        if self.output_path is None and (self.resume or self.restart):
            raise UsageError("--resume and --restart need a file; give one with --output")
        if "-" in self.paths and len(self.paths) > 1:
            raise UsageError("- takes the paths from standard input; give it alone")
        if self.null and not self.from_list:
            raise UsageError("--null is about the list on standard input; give - in place of paths")
        if self.row_format == "parquet" and self.output_path is None:
            raise UsageError("parquet cannot be written to standard output; give a file with --output")

    @property
    def from_list(self) -> bool:
        """Whether paths come from standard input."""
        return self.paths == ("-",)

    @property
    def output_path(self) -> Path | None:
        """The output file; None is standard output."""
        return None if self.output == "-" else Path(self.output)

    @property
    def row_format(self) -> str:
        """The format of the rows."""
        return self.format_name or _SUFFIX_FORMATS.get(Path(self.output).suffix.lower(), "table")


def _classify(options: Options) -> int:
    find = FindOptions(follow_links=options.follow_links, hidden=options.hidden)
    found = _find(options, find)
    cascade = Cascade(
        options.bundle,
        operating_point=options.operating_point,
        top_k=options.top_k,
        ask=options.ask,
        workers=options.workers,
        max_pixels=options.max_pixels,
    )
    name = bundle_id(cascade.bundle)
    kind = options.row_format
    fields = choose_fields(options.fields, explain=options.explain, columns=kind in ("csv", "parquet"))
    tree = cascade.bundle.tree
    text = make_format(
        kind, fields, explain=options.explain, labels=(*tree.labels, *tree.parents), bundle=name
    )
    store = open_store(
        options.output_path,
        text,
        _facts(options, bundle_hash(cascade.bundle), fields),
        resume=options.resume,
        restart=options.restart,
        remember=options.by_content,
    )
    started = time.perf_counter()
    progress = Progress(
        # Rows that go to the terminal show how far the run is; a bar would run through them.
        quiet=options.quiet or (options.output_path is None and sys.stdout.isatty()),
        count=None
        if options.from_list
        else lambda: sum(1 for _ in find_photos(options.paths, find.uncounted())),
    )

    def say_stopping() -> None:
        click.echo("cascade: finishing the photos in work; Ctrl-C again stops at once", err=True)

    with closing(store), progress, Interrupt(say_stopping, progress.stop) as interrupt:
        run = FolderRun(cascade, store, name, options.by_content, lambda: interrupt.stopped, progress)
        summary = run.run([found])
        store.finish()
    if not options.quiet and (summary.photos > 1 or summary.already_done):
        for line in summary.lines(time.perf_counter() - started, find.left_out):
            click.echo(line, err=True)
    if interrupt.stopped:
        if options.output_path is not None:
            click.echo("cascade: stopped; give the same command with --resume to go on", err=True)
        return interrupt.exit_code
    return 1 if summary.failed else 0


def _find(options: Options, find: FindOptions) -> Iterator[Found]:
    """Return what is to be classified; at least one photo, so that nothing is created for an empty folder."""
    if options.from_list:
        found = read_list(sys.stdin.buffer, null=options.null)
        nothing = "the list on standard input is empty"
    else:
        found = find_photos(options.paths, find)
        nothing = (
            f"{', '.join(map(printable, options.paths))}: holds no photos; give a folder that does, or files"
        )
    first = next(found, None)
    if first is None:
        if find.left_out:
            nothing += f" (passed over: {', '.join(f'{k} {v:,}' for k, v in find.left_out.items())})"
        raise UsageError(nothing)
    return itertools.chain([first], found)


def _facts(options: Options, bundle: str, fields: tuple[str, ...]) -> dict[str, str]:
    """Everything that decides what a row says and how it is written; a continued run must have the same."""
    return {
        "bundle": bundle,
        "--format": options.row_format,
        "--fields": ",".join(fields),
        "--explain": str(options.explain),
        "--ask": options.ask,
        "--operating-point": options.operating_point,
        "--top-k": str(options.top_k),
        "--max-pixels": str(options.max_pixels),
        "--by-content": str(options.by_content),
    }
