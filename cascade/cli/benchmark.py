"""Runs `cascade benchmark`: measures how fast this machine classifies."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cascade.cli.options import budget_option, bundle_option, command
from cascade.errors import DataError
from cascade.evaluation.throughput import SHARES, Throughput
from cascade.inference.routing import ASK_MODES

if TYPE_CHECKING:
    from cascade.bundle.manifest import Bundle
    from cascade.classifier import Cascade

__all__ = ["benchmark"]

#: The bundle's own sample photos are few; this many times over they keep every core busy for a moment.
_SAMPLE_REPEATS: Final = 16
#: Steps of the dial that are measured; every one takes as long as another setup.
_BUDGETS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@command
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True))
@bundle_option
@click.option(
    "--operating-point",
    metavar="NAME",
    default="default",
    show_default=True,
    help="What decides when an expert is asked; see `cascade info`.",
)
@budget_option
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Threads.  [default: one per core]")
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Take at most this many photos of FOLDER.",
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How often everything is measured; the median is shown.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def benchmark(
    folder: Path | None,
    bundle: Path | None,
    operating_point: str,
    budget: float | None,
    workers: int | None,
    count: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure speed on the photos of FOLDER, on this machine.

    Photos per second, milliseconds per stage and where the time goes: with the experts that the router asks
    for, with none, and with all of them; with each variant of the bundle, if it has several; and photos per
    second and mean cost along the dial --budget. Without FOLDER, the few sample photos of the bundle are
    used.
    """
    from cascade.bundle.manifest import Bundle
    from cascade.classifier import Cascade
    from cascade.evaluation.throughput import measure_throughput

    loaded = Bundle.load(bundle)
    photos = _photos(folder, loaded.folder, count)
    asks = ASK_MODES if loaded.experts else ("never",)
    variants = loaded.variants if len(loaded.variants) > 1 else ()
    budgets = _BUDGETS if loaded.budget else ()
    setups = {ask: (ask, "auto") for ask in asks} | {name: (asks[0], name) for name in variants}

    cascades = _cascades(loaded, setups, operating_point, budget, workers) | {
        _budget_key(share): Cascade(loaded, budget=share, workers=workers) for share in budgets
    }
    speeds = measure_throughput(cascades, photos, rounds=rounds)
    used = cascades[asks[0]]
    if as_json:
        budget_speeds = [
            {"budget": cascades[_budget_key(share)].budget, **speeds[_budget_key(share)].to_dict()}
            for share in budgets
        ]
        document = {
            "bundle": f"{loaded.name} {loaded.version}",
            "photos": len(photos),
            "folder": None if folder is None else str(folder),
            "workers": used.workers,
            "variant_used": used.variant,
            "machine": platform.machine(),
            "ask": {ask: speeds[ask].to_dict() for ask in asks},
            "variant": {name: speeds[name].to_dict() for name in variants},
            "budget_used": used.budget,
            "budget": budget_speeds,
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    of = "the bundle's sample photos, repeated" if folder is None else str(folder)
    click.echo(
        f"{len(photos)} photos ({of}), {used.workers} workers, variant {used.variant}, median of {rounds}\n"
    )
    click.echo("\n".join(_lines({name: speeds[name] for name in setups})))
    if budgets:
        click.echo("\n".join(_budget_lines({share: speeds[_budget_key(share)] for share in budgets})))


def _cascades(
    bundle: Bundle,
    setups: Mapping[str, tuple[str, str]],
    operating_point: str,
    budget: float | None,
    workers: int | None,
) -> dict[str, Cascade]:
    """Return a classifier for every setup, which is (experts asked, variant)."""
    from cascade.classifier import Cascade

    return {
        name: Cascade(
            bundle,
            operating_point=operating_point,
            # A budget says which experts the router asks; `choose_point` says where there is no router.
            budget=budget if ask == "router" or not bundle.experts else None,
            ask=ask,
            workers=workers,
            variant=variant,
        )
        for name, (ask, variant) in setups.items()
    }


def _photos(folder: Path | None, bundle: Path, count: int) -> list[Path]:
    if folder is None:
        listed = bundle / "golden" / "golden.json"
        if not listed.is_file():
            raise DataError("this bundle has no sample photos; name a folder: cascade benchmark FOLDER")
        golden = json.loads(listed.read_text(encoding="utf-8"))
        return [bundle / "golden" / entry["photo"] for entry in golden["photos"]] * _SAMPLE_REPEATS
    from cascade.imaging.files import find_photos

    found = (Path(one.path) for one in find_photos([str(folder)]) if one.error is None)
    photos = list(islice(found, count))
    if not photos:
        raise DataError(f"{folder}: there are no photos below it")
    return photos


def _lines(speeds: Mapping[str, Throughput]) -> Iterator[str]:
    yield f"{'experts asked, variant':24}" + "".join(f"{ask:>10}" for ask in speeds)
    yield _line("photos per second", [f"{s.photos_per_second:.1f}" for s in speeds.values()])
    yield _line("mean cost", [f"{s.cost:.2f}" for s in speeds.values()])
    yield _line("experts per photo", [f"{s.experts_per_photo:.2f}" for s in speeds.values()])
    yield ""
    yield "milliseconds of a worker per photo that the stage sees"
    for stage in dict.fromkeys(stage for speed in speeds.values() for stage in speed.stage_ms):
        cells = (s.stage_ms.get(stage) for s in speeds.values())
        yield _line(f"  {stage}", ["-" if ms is None else f"{ms:.2f}" for ms in cells])
    yield ""
    yield "share of the time"
    for key in SHARES:
        yield _line(f"  {key}", [f"{s.shares[key]:.0%}" for s in speeds.values()])
    failed = max(speed.failed for speed in speeds.values())
    if failed:
        yield f"\n{failed} photos could not be read and are not counted"


def _budget_key(share: float) -> str:
    return f"budget {share:g}"


def _budget_lines(speeds: Mapping[float, Throughput]) -> Iterator[str]:
    yield ""
    yield _line("budget", [f"{share:g}" for share in speeds])
    yield _line("photos per second", [f"{s.photos_per_second:.1f}" for s in speeds.values()])
    yield _line("mean cost", [f"{s.cost:.2f}" for s in speeds.values()])


def _line(title: str, cells: list[str]) -> str:
    return f"{title:24}" + "".join(f"{cell:>10}" for cell in cells)
