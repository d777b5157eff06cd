"""Runs `cascade export`: writes a bundle in the forms that other programs load, and signs it."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import EXACT
from cascade.cli import completion
from cascade.cli.options import Choice, bundle_option, command
from cascade.errors import UsageError, needs_extra

__all__ = ["export"]

_LAYOUTS = ("huggingface", "mlflow", "triton")


@command
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@bundle_option
@click.option(
    "--single",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one ONNX model that holds the whole decision: from the pixels of a photo to an answer.",
)
@click.option(
    "--prepared", is_flag=True, help="With --single: take batches of prepared pixels instead of one photo."
)
@click.option(
    "--to",
    "layout",
    type=Choice(_LAYOUTS),
    help="Write the layout of a model store or server into DIR.",
)
@click.option(
    "--variant",
    metavar="NAME",
    shell_complete=completion.variants,
    default=EXACT,
    show_default=True,
    help="Graphs to export: exact, or another that the bundle has, see `cascade verify`.",
)
@click.option(
    "--sign",
    "key",
    metavar="KEY",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Sign what --to wrote, or else the bundle, with a private key (elliptic curve, PEM).",
)
def export(
    folder: Path | None,
    bundle: Path | None,
    single: Path | None,
    prepared: bool,
    layout: str | None,
    variant: str,
    key: Path | None,
) -> int:
    """Write a bundle in a form that other programs load; docs/embedding/ has a page for each.

    Signing writes model.sig into the folder; `cascade verify --key` checks it.
    """
    if not (single or layout or key):
        raise UsageError("nothing to do; give --single FILE, --to LAYOUT DIR, or --sign KEY")
    if (layout is None) != (folder is None):
        raise UsageError("--to and DIR belong together, e.g.: cascade export --to triton models")
    if prepared and single is None:
        raise UsageError("--prepared is for --single FILE")
    loaded = Bundle.load(bundle)
    if single or layout:
        _export(loaded, single, prepared, layout, folder, variant)
    if key is not None:
        from cascade.bundle.signing import sign

        click.echo(f"signed: {sign(folder or loaded.folder, key)}")
    return 0


def _export(
    bundle: Bundle, single: Path | None, prepared: bool, layout: str | None, folder: Path | None, variant: str
) -> None:
    with needs_extra("cascade export", "export"):
        import onnx

        from cascade.export.layouts import write_layout
        from cascade.export.single_file import single_file
    if single is not None:
        onnx.save(single_file(bundle, prepared=prepared, variant=variant), single)
        click.echo(f"written: {single} ({single.stat().st_size / 1e6:.1f} MB)")
    if layout is not None and folder is not None:
        write_layout(bundle, layout, folder, variant=variant)
        click.echo(f"written: {folder}")
