"""Runs `cascade verify`: shows whether a bundle computes here what it computed where it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cascade.bundle.files import changed_files
from cascade.bundle.manifest import Bundle, find_bundle
from cascade.cache import CACHE_ENVIRONMENT_VARIABLE
from cascade.cli.options import bundle_option, command

if TYPE_CHECKING:
    from cascade.inference.golden_check import Checked

__all__ = ["verify"]


@command
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option(
    "--key",
    metavar="KEY",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Also check that the holder of this public key (elliptic curve, PEM) signed the bundle.",
)
def verify(bundle: Path | None, as_json: bool, key: Path | None) -> int:
    """Check that a bundle is whole, and that this machine computes what its golden outputs say.

    Every file is compared with its hash, every variant of the bundle is run on its golden photos, and these
    are also read from their files. Exit code 1 says that something differs or that a variant must not be
    used here; --variant auto, the default everywhere, never takes such a one. The variants are also timed,
    and from then on auto takes the fastest of those that may be used.
    """
    from cascade.inference.golden_check import verify as check
    from cascade.inference.golden_replay import replay
    from cascade.inference.variants import choose, remember_choice

    if key is not None:
        from cascade.bundle.signing import check_signature

        check_signature(find_bundle(bundle), key)  # before anything in it is read
    loaded = Bundle.load(bundle)
    problems = [*changed_files(loaded), *replay(loaded)]
    checked = check(loaded, timed=True)
    choice = choose(checked)
    if len(checked) > 1 and not remember_choice(loaded, choice):
        click.echo(
            "the choice cannot be kept, because no cache folder can be written; "
            f"set ${CACHE_ENVIRONMENT_VARIABLE} to a folder that can, or give --variant",
            err=True,
        )
    if as_json:
        document = {
            "bundle": f"{loaded.name} {loaded.version}",
            "signed": key is not None,
            "problems": problems,
            "variants": [one.to_dict() for one in checked],
            "auto": {"variant": choice.variant, "why": choice.why},
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        if key is not None:
            click.echo("signed by the holder of the key")
        for problem in problems:
            click.echo(f"NOT AS PACKED: {problem}")
        click.echo("\n".join(_lines(checked)))
        click.echo(f"\n--variant auto takes {choice.variant}: {choice.why}")
    return 0 if not problems and all(one.usable for one in checked) else 1


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
