"""Defines the options that only `cascade classify` has, in the groups in which they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cascade.cli import completion
from cascade.cli.options import Choice, model_options, quiet_option, together
from cascade.imaging.decoding import MAX_PIXELS
from cascade.runs.options import ENGINES, LOCAL
from cascade.runs.rows import FIELDS
from cascade.runs.sorting import SORT_MODES
from cascade.runs.writers import FORMATS

__all__ = ["classify_options"]

#: What is written, and where.
_output_options: Final = together(
    click.option(
        "-f",
        "--format",
        "format_name",
        type=Choice(FORMATS),
        help="How rows are written.  [default: by the ending of --output, else table]",
    ),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(allow_dash=True),
        default="-",
        help="Where rows are written; - is standard output. An existing file is never overwritten. With "
        "--engine ray a folder or a URL.",
    ),
    click.option(
        "--fields",
        metavar="A,B,...",
        shell_complete=completion.fields,
        help=f"Only these keys, in this order: {', '.join(FIELDS)}.",
    ),
    click.option("--explain", is_flag=True, help="Show how each answer came about."),
)

#: How photos are classified.
_answer_options: Final = together(
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
)

#: How a run begins, goes on and ends.
_run_options: Final = together(
    click.option(
        "--resume", is_flag=True, help="Continue the run that wrote --output; simply begin if none did."
    ),
    click.option(
        "--retry-failed", is_flag=True, help="With --resume: read photos again whose row is an error."
    ),
    click.option(
        "--restart", is_flag=True, help="Begin again in place of what a run of cascade wrote to --output."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be read and written, and do nothing of it."),
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
)

#: Which files are photos to classify.
_finding_options: Final = together(
    click.option("-0", "--null", is_flag=True, help="Paths on standard input end with NUL (find -print0)."),
    click.option(
        "--follow-links", is_flag=True, help="Follow links out of the folders, and links to folders."
    ),
    click.option("--hidden", is_flag=True, help="Also look at names that begin with a dot."),
    click.option(
        "--archives", is_flag=True, help="Look into the tar archives and Parquet files of folders, too."
    ),
    click.option(
        "--image-column",
        metavar="NAME",
        help="Column of Parquet files that holds the photos.  [default: image, bytes, or the only one]",
    ),
)

#: What is done with the answers, and what is said about the run.
_result_options: Final = together(
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
        type=Choice(SORT_MODES),
        default="link",
        show_default=True,
        help="How --sort-into puts them there.",
    ),
    click.option("--yes", is_flag=True, help="Carry out --sort-into without asking."),
    click.option(
        "--write-xmp", is_flag=True, help="Write labels as keywords into side-car files, PHOTO.xmp."
    ),
    quiet_option,
    click.option("-v", "--verbose", count=True, help="Log what happens on standard error; twice: in detail."),
)

#: Where the work is done, if not on this machine alone.
_engine_options: Final = together(
    click.option(
        "--engine",
        type=Choice(ENGINES),
        default=LOCAL,
        show_default=True,
        help="What spreads the work: threads of this machine, or Ray, here or on a cluster.  Needs: "
        "pip install 'cascade-vision[ray]'",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="Of a Ray cluster: HOST:PORT, ray://HOST:PORT or auto.  [default: start Ray on this machine]",
    ),
    click.option(
        "--part-size",
        metavar="N",
        type=click.IntRange(min=1),
        help="With --engine: photos in each Parquet file; a part is what is done again when a worker is lost."
        "  [default: 2000]",
    ),
)

#: All of them.
classify_options: Final = together(
    _output_options, _answer_options, _run_options, _finding_options, _engine_options, _result_options
)
