"""Runs `cascade evaluate`: measures a bundle on labelled photos, or compares photos with its test photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascade.cli.options import (
    Choice,
    budget_option,
    bundle_option,
    command,
    label_map_option,
    max_error_option,
    operating_point_option,
    quiet_option,
    variant_option,
)
from cascade.errors import OutputError, UsageError
from cascade.evaluation.label_map import parse_label_map
from cascade.ownership import check_file_target, marked
from cascade.progress_bar import CountBar

if TYPE_CHECKING:
    from cascade.classifier import Cascade
    from cascade.evaluation.guarantee_check import GuaranteeCheck
    from cascade.evaluation.results import Evaluation

__all__ = ["evaluate"]


@command
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@bundle_option
@click.option(
    "--split",
    type=Choice(["train", "calibration", "test"]),
    default="test",
    show_default=True,
    help="Which part of DATA, if it is split.",
)
@operating_point_option
@max_error_option
@budget_option
@variant_option
@click.option(
    "--shifted",
    metavar="N",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Show how the promise fares on N photos made blurred, grey, ...; 0 leaves this out.",
)
@click.option(
    "--drift",
    is_flag=True,
    help="DATA holds photos without labels: say whether they differ from those that the promise was"
    " tested on.  Needs: pip install 'cascade-vision[drift]'",
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
@label_map_option
@quiet_option
def evaluate(
    data: tuple[Path, ...],
    bundle: Path | None,
    split: str,
    operating_point: str,
    max_error: float | None,
    budget: float | None,
    variant: str,
    shifted: int,
    drift: bool,
    report: Path | None,
    json_file: Path | None,
    label_map: tuple[str, ...],
    quiet: bool,
) -> None:
    """Measure a bundle on the labelled photos below the folders DATA.

    Accuracy, calibration and cost of the general model alone, of the cascade, and of all experts always;
    promised beside measured error, also when the same photo comes from another camera; and accuracy by
    source, if a manifest*.csv beside the photos names it.

    DATA: LABEL/FILE, {train,calibration,test}/LABEL/FILE, or corrections.csv; with --drift unlabelled photos.
    """
    if json_file is not None and json_file != Path("-"):
        check_file_target(json_file, "--json")
    if drift:
        if operating_point != "default" or any(o is not None for o in (report, max_error, budget)):
            raise UsageError("--drift looks at no answers; leave out --report, --max-error and the like")
        _drift(data, bundle, json_file, quiet)
        return
    from cascade.classifier import Cascade
    from cascade.evaluation.evaluate import evaluate_folder
    from cascade.evaluation.report import prepare_report, write_report

    if report is not None:
        prepare_report(report)
    with CountBar(quiet=quiet) as bar:
        evaluation = evaluate_folder(
            data,
            bundle=bundle,
            split=split,
            operating_point=operating_point,
            max_error=max_error,
            budget=budget,
            variant=variant,
            label_map=parse_label_map(label_map),
            progress=bar.update,
        )
        cascade = Cascade(
            evaluation.bundle,
            operating_point=operating_point,
            max_error=max_error,
            budget=budget,
            variant=variant,
        )
        check = _check_guarantees(cascade, evaluation, shifted, bar)
    page = None if report is None else write_report(evaluation, report, check)
    _write(*_found(evaluation, check), json_file)
    if page is not None and not quiet:
        click.echo(f"report: {page}", err=True)


def _check_guarantees(
    cascade: Cascade, evaluation: Evaluation, shifted: int, bar: CountBar
) -> GuaranteeCheck:
    """Compare what is promised with what was measured."""
    from cascade.evaluation.guarantee_check import check_guarantees

    return check_guarantees(
        cascade,
        evaluation.photos,
        evaluation.probabilities["cascade"],
        evaluation.truth,
        evaluation.scope_score,
        corrupted=shifted,
        progress=bar.update,
    )


def _found(evaluation: Evaluation, check: GuaranteeCheck) -> tuple[dict[str, Any], str]:
    """Return everything that was measured, as JSON and as text."""
    from cascade.evaluation.guarantee_table import render_guarantees
    from cascade.evaluation.report import render_table
    from cascade.evaluation.sources import accuracy_by_source, render_sources

    sources = accuracy_by_source(evaluation)
    parts = [
        render_table(evaluation),
        *([render_sources(sources)] if sources else []),
        render_guarantees(check),
    ]
    document = evaluation.to_dict() | {"by_source": sources and sources.to_dict()} | check.to_dict()
    return document, "\n".join(parts)


def _drift(data: Sequence[Path], bundle: Path | None, json_file: Path | None, quiet: bool) -> None:
    from cascade.classifier import Cascade
    from cascade.guarantees.drift import check_drift
    from cascade.imaging.files import FindOptions, find_photos

    cascade = Cascade(bundle)
    reference = cascade.bundle.reference
    if reference is None:
        raise UsageError(f"the bundle {cascade.bundle.name!r} has no reference to compare photos with")
    photos = [found.path for found in find_photos([str(folder) for folder in data], FindOptions())]
    with CountBar(quiet=quiet) as bar:
        predictions = []
        for prediction in cascade.predict_many(photos):
            predictions.append(prediction)
            bar.update(len(predictions), len(photos))
    found = check_drift(reference, predictions)
    lines = [found.verdict]
    for test in found.tests:
        lines.append(f"  {test.name:<12} effect {test.effect:.2f}, p {test.p_value:.2g}: {test.text}")
    _write(found.to_dict(), "\n".join(lines) + "\n", json_file)


def _write(document: dict[str, Any], text: str, json_file: Path | None) -> None:
    """Show the text, or the document if standard output is to be JSON; write it to a file if one is named."""
    data = json.dumps(marked(document), indent=2, ensure_ascii=False) + "\n"
    if json_file == Path("-"):
        click.echo(data, nl=False)
        return
    click.echo(text, nl=False)
    if json_file is not None:
        try:
            json_file.write_text(data, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{json_file}: cannot be written ({error.strerror or error})") from error
