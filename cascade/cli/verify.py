"""`cascade verify`: shows whether a bundle computes on this machine what it computed where it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cascade.bundle.manifest import Bundle
from cascade.cli.options import bundle_option, command

if TYPE_CHECKING:
    from cascade.inference.golden_check import Checked

__all__ = ["verify"]


@command
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def verify(bundle: Path | None, as_json: bool) -> int:
    """Check that this machine computes what a bundle's golden outputs say.

    Every variant of the bundle is run on its golden photos. Exit code 1 says that one of them must not be
    used here; --variant auto, the default everywhere, never takes such a one. The variants are
    also timed, and from then on auto takes the fastest of those that may be used.
    """
    from cascade.inference.golden_check import verify as check
    from cascade.inference.variants import choose, remember_choice

    loaded = Bundle.load(bundle)
    checked = check(loaded, timed=True)
    choice = choose(checked)
    if len(checked) > 1:
        remember_choice(loaded, choice)
    if as_json:
        facts = {
            "bundle": f"{loaded.name} {loaded.version}",
            "variants": [one.to_dict() for one in checked],
            "auto": {"variant": choice.variant, "why": choice.why},
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(checked)))
        click.echo(f"\n--variant auto takes {choice.variant}: {choice.why}")
    return 0 if all(one.usable for one in checked) else 1


def _lines(checked: Sequence[Checked]) -> Iterator[str]:
    yield f"{checked[0].photos} golden photos; largest difference from when the bundle was made"
    yield ""
    yield f"{'variant':24}" + "".join(f"{one.variant:>12}" for one in checked)
    for stage in checked[0].difference:
        unit = "probability" if stage == "arbiter" else "logit"
        cells = "".join(f"{one.difference[stage]:>12.5f}" for one in checked)
        yield f"{f'  {stage} ({unit})':24}{cells}"
    yield f"{'labels that flipped':24}" + "".join(f"{one.flipped:>12}" for one in checked)
    yield f"{'away from exact':24}" + "".join(f"{one.from_exact:>12.5f}" for one in checked)
    yield f"{'general, ms per photo':24}" + "".join(f"{one.general_ms or 0:>12.2f}" for one in checked)
    yield f"{'usable here':24}" + "".join(f"{'yes' if one.usable else 'NO':>12}" for one in checked)
    for one in checked:
        for problem in one.problems:
            yield f"  {one.variant}: {problem}"
