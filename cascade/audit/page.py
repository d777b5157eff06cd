"""Writes the page of an audit: photos side by side, a choice for each, and a button that saves the choices.

The page holds small copies of the photos and fetches nothing. Needs jinja2, of the extra `audit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from cascade.audit.audit import Audit
from cascade.audit.decisions import ACTIONS, COLUMNS, Decision
from cascade.audit.finding import KINDS, Finding
from cascade.errors import OutputError
from cascade.imaging.files import readable
from cascade.imaging.thumbnail import thumbnail_base64
from cascade.ownership import HTML_MARK
from cascade.runs.gallery.page import link, script_json
from cascade.runs.replacement import replacing

__all__ = ["write_page"]

_THUMBNAIL: Final = 160  # pixels of the longer side: enough to tell a copy, 5 kB each
#: Findings of one kind that are shown, the surest ones; decisions.csv has them all.
_SHOWN: Final = 150


def write_page(found: Audit, decisions: Sequence[Decision], path: Path, name: str) -> None:
    """Write the page, replacing an earlier one.

    Args:
        found: what to show; the photos are read once more, for the small copies.
        decisions: about every finding that is about a photo, in the order of the findings.
        path: of the page.
        name: of what was audited.

    Raises:
        OutputError: when it cannot be written.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("cascade.audit").joinpath("page.html").read_text(encoding="utf-8")
    rows = [decision.to_dict() for decision in decisions]
    page = environment.from_string(text).render(
        name=readable(name),
        mark=Markup(HTML_MARK),
        audit=found,
        labels=len({photo.label for photo in found.photos}),
        sections=_sections(found, decisions, path.resolve().parent),
        about_labels=[finding for finding in found.findings if not finding.path],
        shown=_SHOWN,
        data=Markup(script_json({"columns": COLUMNS, "rows": rows})),
    )
    try:
        with replacing(path) as new:
            new.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _sections(found: Audit, decisions: Sequence[Decision], folder: Path) -> list[dict[str, Any]]:
    paths = {photo.shown: photo.path for photo in found.photos}
    sections = []
    for kind, meaning in KINDS.items():
        ours = [(number, one) for number, one in enumerate(decisions) if one.finding.kind == kind]
        if ours:
            cards = [_card(number, one, paths, folder) for number, one in ours[:_SHOWN]]
            choices = _choices(ours[0][1].finding)
            about = {"kind": kind, "meaning": meaning, "count": len(ours), "choices": choices}
            sections.append(about | {"cards": cards})
    return sections


def _card(number: int, decision: Decision, paths: dict[str, str], folder: Path) -> dict[str, Any]:
    finding = decision.finding
    sides = [(finding.path, finding.label, finding.split)]
    if finding.other:
        sides.append((finding.other, finding.other_label, finding.other_split))
    shown = [
        {
            "name": Path(path).name,
            "path": path,
            "label": label,
            "split": split,
            "href": link(paths[path], folder),
            "image": thumbnail_base64(paths[path], _THUMBNAIL),
        }
        for path, label, split in sides
    ]
    about = {"number": number, "decision": decision, "finding": finding, "photos": shown}
    return about | {"choices": _choices(finding)}


def _choices(finding: Finding) -> list[str]:
    return [action for action in ACTIONS if action != "relabel" or finding.suggested]
