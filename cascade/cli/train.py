"""Runs `cascade train`: makes a bundle from labelled photos and recipes."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.cli import completion
from cascade.cli.options import (
    Choice,
    command,
    label_map_option,
    out_of_scope_option,
    promised_error_option,
    replace_option,
)
from cascade.errors import UsageError, needs_extra
from cascade.evaluation.label_map import parse_label_map

__all__ = ["train"]


@command
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--recipes",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Recipe file, or a folder of them; may be given several times.  [default: those of the shipped "
    "bundle if DATA has photos of all its labels, else one made from the names of the folders]",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the bundle that is made; with --lr-study and --sweep, --work is enough.",
)
@click.option(
    "--work",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for caches and checkpoints; a stopped run goes on from there.  [default: OUT.work]",
)
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    shell_complete=completion.recipe_names,
    help="Train just this recipe, and make no bundle.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a field in all recipes, e.g. --set train.epochs=3; may be given several times.",
)
@click.option(
    "--lr-study",
    is_flag=True,
    help="Train nothing: let the learning rate rise, show the loss, and suggest a rate for the general recipe"
    " or those of --only.",
)
@click.option(
    "--sweep",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Train the general recipe, or that of --only, with every combination of fields that FILE (TOML)"
    " names, and compare them.",
)
@click.option(
    "--wandb",
    type=Choice(["disabled", "offline", "online"]),
    default="disabled",
    show_default=True,
    help="Log to Weights & Biases; nothing is sent anywhere unless this says online.",
)
@click.option("--device", metavar="NAME", help="cpu, cuda, mps, ...  [default: a GPU if there is one]")
@click.option("--name", metavar="TEXT", help="Name of the bundle.  [default: that of OUT]")
@click.option(
    "--bundle-version", metavar="VERSION", default="0.1.0", show_default=True, help="Of the bundle."
)
@replace_option
@label_map_option
@out_of_scope_option
@promised_error_option
@click.option("--int8", is_flag=True, help="Also pack a faster int8 variant of every network.")
def train(
    data: tuple[Path, ...],
    recipes: tuple[Path, ...],
    out: Path | None,
    work: Path | None,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    lr_study: bool,
    sweep: Path | None,
    wandb: str,
    device: str | None,
    name: str | None,
    bundle_version: str,
    label_map: tuple[str, ...],
    out_of_scope: Path | None,
    max_error: float,
    int8: bool,
    replace: bool,
) -> None:
    """Train a bundle on DATA: LABEL/FILE, {train,calibration,test}/LABEL/FILE, or corrections.csv.

    Given again, it goes on where it was stopped. Needs: pip install 'cascade-vision[train]'
    """
    if lr_study and sweep is not None:
        raise UsageError("--lr-study and --sweep are two things; give one of them")
    home = _work_folder(work, out, explores=(explores := lr_study or sweep is not None))
    with needs_extra("cascade train", "train"):
        from cascade.training import run
        from cascade.training.overrides import parse_settings
    changed, mapped = parse_settings(settings), parse_label_map(label_map)
    if explores or out is None:
        run.explore(
            data,
            recipes,
            home,
            only=only or ("general",),
            sweep=sweep,
            wandb=wandb,
            device=device,
            settings=changed,
            label_map=mapped,
        )
        return
    run.train(
        data,
        recipes,
        out,
        work=home,
        only=only,
        wandb=wandb,
        device=device,
        name=name,
        version=bundle_version,
        max_error=max_error,
        int8=int8,
        replace=replace,
        settings=changed,
        label_map=mapped,
        out_of_scope=out_of_scope,
    )


def _work_folder(work: Path | None, out: Path | None, *, explores: bool) -> Path:
    """Return the folder for caches and checkpoints.

    Raises:
        UsageError: when neither it nor the bundle has a place, or a bundle that is to be made has none.
    """
    home = work or (out and out.with_name(out.name + ".work"))
    if home is None or (out is None and not explores):
        raise UsageError("--out is missing; name the folder of the bundle, e.g. --out my-bundle")
    return home
