"""Runs `cascade calibrate`: fits the probabilities of a bundle anew on labelled photos."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.cli.options import (
    bundle_option,
    command,
    label_map_option,
    out_of_scope_option,
    promised_error_option,
    replace_option,
)
from cascade.errors import needs_extra
from cascade.evaluation.label_map import parse_label_map

__all__ = ["calibrate"]


@command
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@bundle_option
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the bundle that is made.",
)
@click.option("--name", metavar="TEXT", help="Name of the new bundle.  [default: that of OUT]")
@click.option("--bundle-version", metavar="VERSION", help="Of the new bundle.  [default: 0.1.0]")
@replace_option
@label_map_option
@out_of_scope_option
@promised_error_option
def calibrate(
    data: tuple[Path, ...],
    bundle: Path | None,
    out: Path,
    name: str | None,
    bundle_version: str | None,
    label_map: tuple[str, ...],
    out_of_scope: Path | None,
    max_error: float,
    replace: bool,
) -> None:
    """Calibrate a bundle on the labelled photos below the folders DATA, without training.

    Probabilities and promises hold for photos like those that they were fitted on; a few hundred of your own
    make them yours. The networks stay as they are. DATA holds LABEL/FILE, with labels of the bundle (some may
    be missing), and 15 % are set aside to measure; of {train,calibration,test}/LABEL/FILE, train is left
    alone. Corrections, as cascade review --export NAME.csv writes them, will do as well.
    Needs: pip install 'cascade-vision[train]'

    Example: cascade calibrate my-photos --out my-bundle
    """
    with needs_extra("cascade calibrate", "train"):
        from cascade.training.calibration.recalibrate import recalibrate
    recalibrate(
        bundle,
        data,
        out,
        name=name,
        version=bundle_version,
        max_error=max_error,
        label_map=parse_label_map(label_map),
        out_of_scope=out_of_scope,
        replace_bundle=replace,
    )
