"""`cascade evaluate`: how good a bundle is on labelled photos. In: a folder. Out: a table, on
request a report and JSON. The work is done by `cascade.evaluation`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from cascade.commands.options import bundle_option, quiet_option
from cascade.errors import OutputError

__all__ = ["evaluate"]


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@bundle_option
@click.option(
    "--split",
    type=click.Choice(["train", "calibration", "test"]),
    default="test",
    show_default=True,
    help="Which part of DATA, if it is split.",
)
@click.option(
    "--operating-point",
    metavar="NAME",
    default="default",
    show_default=True,
    help="What decides between a label, a broader one and unknown; see `cascade info`.",
)
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write a page with plots, JSON and CSV.  Needs: pip install 'cascade-vision[report]'",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Also write every figure as JSON; - is standard output, in place of the table.",
)
@quiet_option
def evaluate(
    data: Path,
    bundle: Path | None,
    split: str,
    operating_point: str,
    report: Path | None,
    json_file: Path | None,
    quiet: bool,
) -> None:
    """Measure a bundle on the labelled photos below DATA.

    Accuracy, group accuracy, NLL, Brier score and ECE of the general model alone, of the cascade, and of all
    experts always, side by side, each with its mean cost per photo.

    DATA holds LABEL/FILE, or {train,calibration,test}/LABEL/FILE.
    """
    from cascade.evaluation import evaluate_folder
    from cascade.report import render_table

    with _Bar(quiet) as bar:
        evaluation = evaluate_folder(
            data,
            bundle=bundle,
            split=split,
            operating_point=operating_point,
            report=report,
            progress=bar.update,
        )
    text = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n"
    if json_file == Path("-"):
        click.echo(text, nl=False)
        return
    click.echo(render_table(evaluation), nl=False)
    if json_file is not None:
        try:
            json_file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{json_file}: cannot be written ({error.strerror or error})") from error


class _Bar:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._shown = sys.stderr.isatty() and not quiet

    def __enter__(self) -> _Bar:
        if self._shown:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("photos", total=None)
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._progress.stop()

    def update(self, done: int, total: int) -> None:
        if self._shown:
            self._progress.update(self._task, completed=done, total=total)
