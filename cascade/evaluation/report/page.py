"""Writes the report of an evaluation: a page, the figures as JSON and one CSV.

    report.html   self-contained: plots are inside, and so are small copies of the example photos
    report.json   every figure of the page, see `cascade.evaluation.report.analysis`
    photos.csv    one row per photo, see `cascade.evaluation.report.photo_csv`

Needs the extra `report` (jinja2, matplotlib).
"""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from cascade.errors import MissingExtraError, OutputError
from cascade.evaluation.guarantee_check import GuaranteeCheck
from cascade.evaluation.guarantee_table import promise_text
from cascade.evaluation.metrics import Interval
from cascade.evaluation.report.analysis import analyse, expert_says
from cascade.evaluation.report.photo_csv import write_csv
from cascade.evaluation.report.table import compared_systems, difference_text
from cascade.evaluation.results import Evaluation
from cascade.imaging.files import readable
from cascade.imaging.thumbnail import thumbnail_base64
from cascade.ownership import check_file_target, marked

__all__ = ["prepare_report", "write_report"]

_THUMBNAIL: Final = 132  # pixels of the longer side: enough to see what went wrong, 4 kB each
_PACKAGES: Final = ("jinja2", "matplotlib")


def prepare_report(folder: Path) -> None:
    """Make sure, before the work begins, that a report can be written.

    Raises:
        MissingExtraError: when the extra `report` is not installed.
        OutputError: when the folder cannot be made, or holds a file of such a name that no report wrote.
    """
    if any(importlib.util.find_spec(name) is None for name in _PACKAGES):
        raise MissingExtraError("cascade evaluate --report", "report")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error})") from error
    for name in ("report.html", "report.json", "photos.csv"):
        check_file_target(folder / name, "--report")


def write_report(evaluation: Evaluation, folder: Path, check: GuaranteeCheck | None = None) -> Path:
    """Write page, JSON and CSV, replacing those of an earlier report, and return the path of the page.

    Args:
        evaluation: the photos are read once more, for the small copies of the examples.
        folder: made if it is not there.
        check: what was promised and measured; None leaves it out.

    Raises:
        MissingExtraError: when the extra `report` is not installed.
        OutputError: when a file cannot be written.
    """
    prepare_report(folder)
    from cascade.evaluation.report import plots  # needs matplotlib

    # The keys of `cascade evaluate --json`; the page and the JSON beside it know what was promised too.
    found = analyse(evaluation) | (check.to_dict() if check else {"promise": [], "label_sets": []})
    page = _render(evaluation, found, plots.draw(found, compared_systems(evaluation)), check)
    path = folder / "report.html"
    try:
        (folder / "report.json").write_text(
            json.dumps(marked(found), indent=1, ensure_ascii=False), encoding="utf-8"
        )
        write_csv(evaluation, folder / "photos.csv")
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return path


def _render(
    evaluation: Evaluation, found: dict[str, Any], plots: dict[str, str], check: GuaranteeCheck | None
) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = _percent
    environment.filters["between"] = _between
    template = environment.from_string(
        files("cascade.evaluation.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    cards = _Cards(evaluation)
    return template.render(
        **found,
        tree=evaluation.bundle.tree,
        names=compared_systems(evaluation),
        experts=evaluation.bundle.experts,
        plot={name: Markup(svg) for name, svg in plots.items()},  # our own SVG, not to be escaped
        difference=difference_text(evaluation.difference()),
        difference_always=difference_text(evaluation.difference("always")),
        card=cards.card,
        promised=promise_text(check) if check else "",
    )


class _Cards:
    """Example photos with the answers of every stage."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._says = {e.name: expert_says(evaluation, e.name) for e in evaluation.bundle.experts}

    def card(self, place: int) -> dict[str, Any]:
        """Describe the photo at a position of `Evaluation.photos`."""
        evaluation, photo = self._evaluation, self._evaluation.photos[place]
        says = [
            {"name": name, "label": opinion[place], "probability": float(sure[place])}
            for column, (name, (opinion, sure)) in enumerate(self._says.items())
            if evaluation.deferred["cascade"][place, column]
        ]
        # With nobody asked the cascade is the general model, and one line says it all.
        says = [self._system("general", place), *says] if says else []
        return {
            "path": readable(str(photo.path)),
            "file": readable(photo.path.name),
            "label": photo.label,
            "image": _thumbnail(photo.path),
            "says": [*says, self._system("cascade", place)],
        }

    def _system(self, system: str, place: int) -> dict[str, Any]:
        column = int(self._evaluation.predicted(system)[place])
        probability = float(self._evaluation.probabilities[system][place, column])
        return {
            "name": system,
            "label": self._evaluation.bundle.tree.labels[column],
            "probability": probability,
        }


def _thumbnail(path: Path) -> str | None:
    """Return a small copy as a data URI; None if the photo is no longer there."""
    copy = thumbnail_base64(path, _THUMBNAIL)
    return None if copy is None else f"data:image/webp;base64,{copy}"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}"


def _between(interval: Interval | list[float] | None, digits: int = 1) -> str:
    return "" if interval is None else f"{100 * interval[0]:.{digits}f}–{100 * interval[1]:.{digits}f}"
