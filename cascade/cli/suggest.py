"""Runs `cascade suggest`: chooses the photos of a run that are worth labelling next."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from cascade.cli.options import bundle_option, command, quiet_option
from cascade.errors import UsageError
from cascade.ownership import check_file_target
from cascade.progress_bar import CountBar

__all__ = ["suggest"]


@command
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path, exists=True))
@bundle_option
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many photos to choose.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write their rows, as .jsonl, .json or .csv, for cascade review.  [default: print their paths]",
)
@click.option(
    "--corrections",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Photos in this log of cascade review are left out.  [default: RUN.corrections.sqlite]",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of the choice.")
@quiet_option
def suggest(
    run: Path,
    bundle: Path | None,
    count: int,
    output: Path | None,
    corrections: Path | None,
    seed: int,
    quiet: bool,
) -> None:
    """Choose the photos of RUN that are worth labelling next: doubtful ones that are unlike each other.

    RUN is the --output of cascade classify (jsonl, json, csv or parquet), or a folder of photos, which is
    classified first. What cascade review has corrections of already is left out.

    Example: cascade suggest answers.jsonl --count 100 -o next.jsonl && cascade review next.jsonl
    """
    if output is not None:
        if output.suffix.lower() not in (".jsonl", ".json", ".csv"):
            raise UsageError(f"--output {output}: give it a name that ends with .jsonl, .json or .csv")
        check_file_target(output, "--output")
    from cascade.classifier import Cascade
    from cascade.review.suggestion import suggest as choose
    from cascade.runs.read_rows import read_rows

    if run.is_dir():
        from cascade.cli.review import classified

        run = classified(run, bundle)
    reviewed = _reviewed(corrections or run.with_name(run.name + ".corrections.sqlite"))
    with CountBar(quiet=quiet) as bar:
        found = choose(
            read_rows(run),
            run,
            Cascade(bundle),
            count,
            reviewed=reviewed,
            seed=seed,
            progress=bar.update,
        )
    _write(found.rows, output)
    if not quiet:
        missing = f", {found.missing} could not be read" if found.missing else ""
        click.echo(
            f"cascade: chose {len(found.rows):,} of {found.open:,} photos that nobody has reviewed; looked "
            f"at the {found.looked_at:,} most doubtful ones{missing}",
            err=True,
        )
        if output is not None:
            click.echo(f"cascade: wrote {output}; label them with: cascade review {output}", err=True)


def _reviewed(log: Path) -> frozenset[str]:
    if not log.is_file():
        return frozenset()
    from cascade.review.corrections import CorrectionLog

    with closing(CorrectionLog(log)) as entries:
        return frozenset(entries.states())


def _write(rows: tuple[dict[str, object], ...], output: Path | None) -> None:
    from cascade.runs.rows import FIELDS, path_of
    from cascade.runs.writers import make_format

    if output is None:
        for row in rows:
            click.echo(path_of(row))
        return
    fields = [field for field in FIELDS if any(field in row for row in rows)]
    form = make_format(output.suffix.lower().removeprefix("."), fields, explain=True, labels=(), bundle="")
    with output.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(form.header())
        file.writelines(form.format(row) for row in rows)
        file.write(form.footer())
