"""`cascade train`: from labelled photos and recipes to a bundle. In: folders. Out: a folder. The work is
done by `cascade.training`, which needs the extra `train`."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.commands.options import command
from cascade.errors import MissingExtraError

__all__ = ["train"]


@command
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--recipes",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    default=("experts",),
    show_default=True,
    help="Recipe file, or a folder of them; may be given several times.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the bundle that is made.",
)
@click.option(
    "--work",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for caches and checkpoints; a stopped run goes on from there.  [default: OUT.work]",
)
@click.option("--only", metavar="NAME", multiple=True, help="Train just this recipe, and make no bundle.")
@click.option(
    "--wandb",
    type=click.Choice(["disabled", "offline", "online"]),
    default="disabled",
    show_default=True,
    help="Log to Weights & Biases; nothing is sent anywhere unless this says online.",
)
@click.option("--device", metavar="NAME", help="cpu, cuda, mps, ...  [default: a GPU if there is one]")
@click.option("--name", metavar="TEXT", help="Name of the bundle.  [default: that of OUT]")
@click.option(
    "--bundle-version", metavar="VERSION", default="0.1.0", show_default=True, help="Of the bundle."
)
@click.option(
    "--max-error",
    metavar="SHARE",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Share of wrong answers that the default operating point may give.",
)
@click.option("--int8", is_flag=True, help="Also pack a faster int8 variant of every network.")
def train(
    data: Path,
    recipes: tuple[Path, ...],
    out: Path,
    work: Path | None,
    only: tuple[str, ...],
    wandb: str,
    device: str | None,
    name: str | None,
    bundle_version: str,
    max_error: float,
    int8: bool,
) -> None:
    """Train a bundle on the labelled photos below DATA.

    DATA holds LABEL/FILE, or {train,calibration,test}/LABEL/FILE. Given again, the same command goes on where
    it was stopped. Needs: pip install 'cascade-vision[train]'
    """
    try:
        from cascade.training import run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "cascade":
            raise
        raise MissingExtraError("cascade train", "train") from error
    run.train(
        data,
        recipes,
        out,
        work=work,
        only=only,
        wandb=wandb,
        device=device,
        name=name,
        version=bundle_version,
        max_error=max_error,
        int8=int8,
    )
