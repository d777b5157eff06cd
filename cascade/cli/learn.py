"""Runs `cascade learn`: makes a better bundle from corrections, without the photos that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from cascade.cli.options import (
    bundle_option,
    command,
    label_map_option,
    promised_error_option,
    replace_option,
)
from cascade.errors import UsageError, needs_extra
from cascade.evaluation.label_map import parse_label_map

__all__ = ["learn"]


@command
@click.argument("corrections", type=click.Path(path_type=Path), nargs=-1)
@bundle_option
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the bundle that is made.",
)
@click.option(
    "--memory",
    metavar="DATA",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Photos that the bundle was trained on, so that nothing is forgotten; may be given several times."
    "  [default: what the bundle remembers]",
)
@click.option(
    "--parent",
    metavar="LABEL=GROUP",
    multiple=True,
    help="Group of a label that is new; without it, the label is a group of its own.",
)
@click.option(
    "--add-expert",
    metavar="NAME=FOLDER",
    multiple=True,
    help="Add an expert for the labels in FOLDER, which holds LABEL/FILE; may be given several times.",
)
@click.option("--name", metavar="TEXT", help="Name of the new bundle.  [default: that of OUT]")
@click.option("--bundle-version", metavar="VERSION", help="Of the new bundle.  [default: 0.1.0]")
@replace_option
@label_map_option
@promised_error_option
@click.option("--force", is_flag=True, help="Write the new bundle even if it is worse than the old one.")
def learn(
    corrections: tuple[Path, ...],
    bundle: Path | None,
    out: Path,
    memory: tuple[Path, ...],
    parent: tuple[str, ...],
    add_expert: tuple[str, ...],
    name: str | None,
    bundle_version: str | None,
    label_map: tuple[str, ...],
    max_error: float,
    replace: bool,
    force: bool,
) -> None:
    """Learn from CORRECTIONS, and from labels and experts that are new, in minutes.

    CORRECTIONS are what cascade review --export wrote, a folder or a CSV file, or any folder of LABEL/FILE; a
    label that the bundle does not know is added to it. A part is held out to compare before and after, and a
    bundle that would be worse is refused. Needs: pip install 'cascade-vision[train]'

    Example: cascade learn corrections.csv --out my-bundle
    """
    if not corrections and not add_expert:
        raise UsageError("there is nothing to learn from; give corrections, or --add-expert NAME=FOLDER")
    with needs_extra("cascade learn", "train"):
        from cascade.training.learning.learn import LearnOptions
        from cascade.training.learning.learn import learn as learn_from
    options = LearnOptions(
        name=name,
        version=bundle_version,
        max_error=max_error,
        label_map=parse_label_map(label_map),
        parents=_pairs("--parent", "LABEL=GROUP", parent),
        experts={
            key: Path(value) for key, value in _pairs("--add-expert", "NAME=FOLDER", add_expert).items()
        },
        memory=memory,
        replace=replace,
        force=force,
    )
    learn_from(bundle, corrections, out, options)


def _pairs(option: str, form: str, texts: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise UsageError(f"{option} {text}: expected {form}")
        if key in pairs:
            raise UsageError(f"{option}: {key} is named twice")
        pairs[key] = value
    return pairs
