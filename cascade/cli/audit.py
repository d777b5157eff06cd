"""Runs `cascade audit`: finds what is wrong with labelled photos, and makes a clean copy as decided."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cascade.cli.options import bundle_option, command, quiet_option
from cascade.errors import MissingExtraError, OutputError
from cascade.imaging.files import printable
from cascade.ownership import check_file_target
from cascade.progress_bar import CountBar

if TYPE_CHECKING:
    from cascade.audit.audit import Audit
    from cascade.audit.decisions import Decision

__all__ = ["audit"]

_PACKAGES: Final = ("cleanlab", "jinja2", "scipy", "sklearn")
_PAGE, _FINDINGS, _DECISIONS, _SEEN = "audit.html", "findings.json", "decisions.csv", "seen.sqlite"


@command
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@bundle_option
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the page, the findings, the decisions, and what the next audit need not read again."
    "  [default: DATA.audit, beside DATA]",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Also write the findings as a list in JSON; - is standard output, in place of the table.",
)
@click.option(
    "--apply",
    "decisions",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Audit nothing: make a clean copy of DATA as decided in FILE, a decisions.csv.",
)
@click.option(
    "--clean",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the clean copy that --apply makes.  [default: DATA.clean, beside DATA]",
)
@click.option("--copy", is_flag=True, help="Make the clean copy of files, not of links.")
@click.option("--edit-test", is_flag=True, help="Let --apply change photos of the split test too.")
@quiet_option
def audit(**given: Any) -> None:
    """Find what is wrong with the labelled photos below the folders DATA, before anybody trains on them.

    Corrupt and odd files, duplicates within and across labels and splits, labels that are probably wrong,
    photos unlike those of their label, labels that hang on one source, labels that cannot be told apart.

    DATA holds LABEL/FILE, {train,calibration,test}/LABEL/FILE, or a manifest*.csv with the columns file and
    label, and if wanted split and source. Nothing in DATA is changed: decide in decisions.csv, or on the
    page, and give it to --apply. Needs: pip install 'cascade-vision[audit]'
    """
    if any(importlib.util.find_spec(name) is None for name in _PACKAGES):
        raise MissingExtraError("cascade audit", "audit")
    from cascade.audit.listing import list_photos

    data, decisions = given["data"], given["decisions"]
    if decisions is not None:
        clean = given["clean"] or _beside(data, "clean")
        _apply(data, decisions, clean, "copy" if given["copy"] else "link", given["edit_test"])
        return
    out, json_file = given["out"] or _beside(data, "audit"), given["json_file"]
    _prepare(out, json_file)
    photos = list_photos(data)
    with CountBar(quiet=given["quiet"]) as bar:
        found = _audit(photos, given["bundle"], out, bar)
        decided = _decide(found, out / _DECISIONS)
        _write(found, decided, out, data[0].resolve().name)
    _show(found, json_file)
    if not given["quiet"]:
        click.echo(f"page: {out / _PAGE}", err=True)
        click.echo(
            "decide there or in decisions.csv, then: "
            f"cascade audit {' '.join(str(d) for d in data)} --apply {out / _DECISIONS}",
            err=True,
        )


def _beside(data: Sequence[Path], ending: str) -> Path:
    first = data[0].resolve()
    return first.with_name(f"{first.name}.{ending}")


def _prepare(out: Path, json_file: Path | None) -> None:
    """Make sure, before the work begins, that everything can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror or error}); give another --out") from error
    for name in (_PAGE, _FINDINGS, _DECISIONS):
        check_file_target(out / name, "--out")
    if json_file is not None and json_file != Path("-"):
        check_file_target(json_file, "--json")


def _audit(photos: Sequence[Any], bundle: Path | None, out: Path, bar: CountBar) -> Audit:
    from cascade.audit.audit import audit
    from cascade.audit.examine import Examiner
    from cascade.audit.store import Store
    from cascade.bundle.manifest import Bundle
    from cascade.inference.cpu import usable_cores

    loaded = Bundle.load(bundle)
    with Store(out / _SEEN, loaded.general.sha256) as store:
        return audit(photos, Examiner(loaded), store, workers=usable_cores(), progress=bar.update)


def _decide(found: Audit, path: Path) -> list[Decision]:
    """Return the proposals, with what was changed in the file that is there."""
    from cascade.audit.decisions import propose, read_decisions, with_earlier

    proposed = propose(found.findings)
    return with_earlier(proposed, read_decisions(path)) if path.exists() else proposed


def _write(found: Audit, decisions: Sequence[Decision], out: Path, name: str) -> None:
    from cascade.audit.decisions import write_decisions
    from cascade.audit.page import write_page

    write_decisions(out / _DECISIONS, decisions)
    _write_text(out / _FINDINGS, _as_json(found))
    write_page(found, decisions, out / _PAGE, name)


def _as_json(found: Audit) -> str:
    rows = [json.dumps(finding.to_dict(), ensure_ascii=False) for finding in found.findings]
    return "[\n" + ",\n".join(rows) + "\n]\n" if rows else "[]\n"


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _show(found: Audit, json_file: Path | None) -> None:
    from cascade.audit.table import render

    if json_file == Path("-"):
        click.echo(_as_json(found), nl=False)
        return
    click.echo(render(found), nl=False)
    if json_file is not None:
        _write_text(json_file, _as_json(found))


def _apply(data: Sequence[Path], decisions: Path, clean: Path, mode: str, edit_test: bool) -> None:
    from cascade.audit.apply import apply_decisions, plan_changes
    from cascade.audit.decisions import read_decisions
    from cascade.audit.listing import list_photos

    plan = plan_changes(list_photos(data), read_decisions(decisions), edit_test=edit_test)
    done = apply_decisions(plan, clean, decisions.with_name("manifest.csv"), data, mode=mode)
    changed = ", ".join(f"{action} {count:,}" for action, count in sorted(plan.changed.items())) or "nothing"
    missing = f", {done.missing:,} are gone" if done.missing else ""
    click.echo(f"{printable(str(clean))}: {done.placed:,} photos{missing}; {changed}", err=True)
    if plan.measured:
        click.echo(f"{plan.measured:,} changed photos are of the split test", err=True)
    if done.undo_file is not None:
        click.echo(f"to take it back: cascade undo {done.undo_file}", err=True)
