"""Runs `cascade demo`: classifies the sample photos inside scikit-learn and scikit-image."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import click

from cascade.cli.options import command, model_options
from cascade.errors import MissingExtraError
from cascade.runs.rows import bundle_id, choose_fields, make_row
from cascade.runs.writers import make_format

__all__ = ["demo", "sample_photos"]

#: Photographs among the data files of these packages; their other samples are drawings, microscopy or
#: textures that no scene label fits. Rocket, cat, portrait and page are there to be declined.
_SAMPLES: Final = {
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "skimage": (
        "data",
        (
            "coffee.png",
            "chelsea.png",
            "astronaut.png",
            "rocket.jpg",
            "motorcycle_left.png",
            "grass.png",
            "brick.png",
            "page.png",
        ),
    ),
}


@command
@model_options
@click.option("--explain", is_flag=True, help="Show how each answer came about.")
def demo(bundle: Path | None, explain: bool, **chosen: Any) -> None:
    """Classify the sample photos that come inside scikit-learn and scikit-image.

    Some of them show nothing that the bundle knows (a cat, a rocket): a good answer to those is "unknown".
    Needs: pip install 'cascade-vision[demo]'
    """
    photos = sample_photos()
    from cascade.classifier import Cascade

    cascade = Cascade(bundle, **chosen)  # the names of the options are those of the arguments
    name = bundle_id(cascade.bundle)
    tree = cascade.bundle.tree
    table = make_format(
        "table",
        choose_fields(None, explain=explain, columns=False),
        explain=explain,
        labels=(*tree.labels, *tree.parents),
        bundle=name,
    )
    click.echo(table.header(), nl=False)
    for photo, prediction in zip(photos, cascade.predict_many(photos), strict=True):
        row = make_row(prediction, name) | {"path": f"{_package(photo)}/{photo.name}"}
        click.echo(table.format(row), nl=False)


def sample_photos() -> list[Path]:
    """Return the sample photos of the installed packages.

    Raises:
        MissingExtraError: when one of the packages is not installed.
    """
    photos = []
    for package, (folder, names) in _SAMPLES.items():
        # The packages are only located, not imported: their files are wanted, not their code.
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise MissingExtraError("cascade demo", "demo")
        found = [Path(spec.origin).parent / folder / name for name in names]
        photos += [path for path in found if path.is_file()]
    if not photos:
        raise MissingExtraError("cascade demo", "demo")
    return photos


def _package(photo: Path) -> str:
    return "scikit-learn" if "sklearn" in photo.parts else "scikit-image"
