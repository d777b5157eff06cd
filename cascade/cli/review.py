"""Runs `cascade review`: shows a finished run in a browser, to look at and to correct."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from cascade.cli.options import bundle_option, command
from cascade.cli.serve import address, listen_options, log_to_stderr, make_settings, needs_serve
from cascade.errors import UsageError

__all__ = ["review"]


@command
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path, exists=True))
@bundle_option
@listen_options
@click.option(
    "--corrections",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where corrections are kept.  [default: RUN.corrections.sqlite, beside the run]",
)
@click.option(
    "--export",
    "export_to",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write what was reviewed and end: a file that ends with .csv, or else a folder with LABEL/FILE"
    " for cascade evaluate, calibrate and train.",
)
@click.option("--open/--no-open", "open_browser", default=True, help="Open the page in a browser.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request on standard error.")
def review(**given: Any) -> int:
    """Look at the photos of a finished run and correct it, in a browser.

    RUN is the --output of cascade classify (jsonl, json, csv or parquet), or a folder of photos, which is
    classified first into FOLDER.answers.jsonl beside it. Corrections are kept beside the run and survive
    every restart; several people can work at once.
    """
    needs_serve("cascade review")
    run = classified(given["run"], given["bundle"]) if given["run"].is_dir() else given["run"]
    corrections = given["corrections"] or run.with_name(run.name + ".corrections.sqlite")
    from cascade.bundle.manifest import Bundle
    from cascade.imaging.decoding import MAX_PIXELS
    from cascade.review.corrections import CorrectionLog
    from cascade.review.export import export
    from cascade.review.session import ReviewSession
    from cascade.runs.read_rows import read_rows

    bundle, rows = Bundle.load(given["bundle"]), read_rows(run)
    with closing(CorrectionLog(corrections)) as log:
        session = ReviewSession(run.name, run, rows, bundle, log, MAX_PIXELS)
        if not len(session.index):
            raise UsageError(f"{run}: holds no rows")
        if given["export_to"] is not None:
            click.echo(export(session.index, given["export_to"]), err=True)
            return 0
        if session.missing():
            click.echo(
                "cascade: some photos are not where the run says; start the command where "
                "cascade classify was started",
                err=True,
            )
        return _serve(session, given)


def _serve(session: Any, given: dict[str, Any]) -> int:
    from cascade.classifier import Cascade
    from cascade.review.routes import review_routes
    from cascade.serving.model import ServedModel
    from cascade.serving.server import open_socket, run_server
    from cascade.serving.service import Service

    log_to_stderr(given["verbose"])
    settings = make_settings(given["host"], given["port"], given["allow_host"], given["token_file"])
    listening = open_socket(settings.host, settings.port)
    service = Service(ServedModel(lambda: Cascade(session.bundle), verify=False), settings)
    url = address(listening)
    click.echo(f"cascade: {len(session.index):,} photos on {url}/#review; Ctrl-C stops", err=True)
    if given["open_browser"] and (os.environ.get("DISPLAY") or os.name == "nt" or sys.platform == "darwin"):
        click.launch(f"{url}/#review")
    run_server(
        service,
        listening,
        more_routes=review_routes(session, service.bodies),
        access_log=given["verbose"],
    )
    click.echo(f"cascade: stopped; corrections are in {session.log.path}", err=True)
    return 0


def classified(folder: Path, bundle: Path | None) -> Path:
    """Classify the photos of a folder, or go on where that was stopped, and return the file of the run."""
    from cascade.cli.classify import classify

    run = folder.resolve().with_name(folder.resolve().name + ".answers.jsonl")
    click.echo(f"cascade: classifying {folder} into {run}", err=True)
    arguments = [str(folder), "--output", str(run), "--resume"]
    if bundle is not None:
        arguments += ["--bundle", str(bundle)]
    code = classify.main(arguments, prog_name="cascade classify", standalone_mode=False)
    if code not in (0, 1):  # 1: some photos failed; their rows say why
        raise UsageError(f"classifying {folder} was stopped; give the same command again to go on")
    return run
