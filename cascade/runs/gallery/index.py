"""Writes the index of a gallery that has several pages: labels, their counts, and links to the pages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from cascade.runs.gallery.page import script_json, template
from cascade.runs.gallery.plan import Part, page_name, pages_folder

__all__ = ["page_links", "write_index"]


def write_index(file: IO[str], index: Path, plan: Sequence[Sequence[Part]], bundle: str) -> None:
    """Write the index.

    Args:
        file: open for text in UTF-8.
        index: where the index will stand.
        plan: see `cascade.runs.gallery.plan.plan_pages`.
        bundle: see `cascade.runs.rows.bundle_id`.
    """
    groups: dict[str | None, dict[str, Any]] = {}
    for number, parts in enumerate(plan, 1):
        for part in parts:
            group = part.group
            about: dict[str, Any] = {
                "label": group.label,
                "parent": group.parent,
                "count": group.count,
                "pages": [],
            }
            groups.setdefault(group.label, about)["pages"].append([page_name(number), part.count])
    head, tail = template("index.html")
    given = {"bundle": bundle, "folder": _quoted(pages_folder(index).name), "pages": len(plan)}
    file.write(f"{head}<script>\nconst about = {script_json(given)};\n")
    file.writelines(f"groups.push({script_json(group)});\n" for group in groups.values())
    file.write(f"</script>\n{tail}")


def page_links(index: Path, number: int, total: int) -> dict[str, Any]:
    """Return where a page leads: to the index, to the page before and to the page after."""
    return {
        "index": f"../{_quoted(index.name)}",
        "number": number,
        "total": total,
        "before": page_name(number - 1) if number > 1 else None,
        "after": page_name(number + 1) if number < total else None,
    }


def _quoted(name: str) -> str:
    return quote(os.fsencode(name))
