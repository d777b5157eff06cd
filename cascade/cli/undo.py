"""Runs `cascade undo`: takes back what `cascade classify --sort-into` or `cascade audit --apply` did."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.cli.options import command
from cascade.imaging.files import printable
from cascade.runs.sorting import undo_sorting

__all__ = ["undo"]


@command
@click.argument("undo_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def undo(undo_file: Path) -> int:
    """Take back what --sort-into of classify or --apply of audit did, as named in its undo FILE.

    Moved photos go back to where they were, links and copies are deleted if nobody changed them. What cannot
    be taken back is listed and left alone; then the exit code is 1.
    """
    done = undo_sorting(undo_file)
    for path, reason in done.left:
        click.echo(f"left: {printable(path)}: {reason}", err=True)
    click.echo(f"{done.undone:,} undone, {len(done.left):,} left as they are", err=True)
    return 1 if done.left else 0
