"""Decides which photos of a gallery stand on which page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["PAGE_SIZE", "Group", "Part", "page_name", "pages_folder", "plan_pages"]

#: Photos on one page. A photo takes about 5 kB, so a page takes about 10 MB, which browsers open at once.
PAGE_SIZE: Final = 2000


@dataclass(frozen=True, slots=True)
class Group:
    """The photos of a run that have the same answer.

    Attributes:
        label: the answer; None for photos that could not be read.
        parent: the broader label of the answer, if it has one.
        count: how many photos there are, at least 1.
    """

    label: str | None
    parent: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one page shows of one group: ``count`` photos."""

    group: Group
    count: int


def plan_pages(groups: Sequence[Group], size: int) -> list[list[Part]]:
    """Divide photos among pages, in order.

    Groups that fit together share a page. A group that is larger than a page is divided into nearly equal
    parts.

    Args:
        groups: in the order in which they are shown.
        size: the largest number of photos on a page.

    Returns:
        For each page the parts that it shows. There is always at least one page.
    """
    pages: list[list[Part]] = [[]]
    free = size
    for group in groups:
        for part in _parts(group, size):
            if part.count > free:
                pages.append([])
                free = size
            pages[-1].append(part)
            free -= part.count
    return pages


def _parts(group: Group, size: int) -> list[Part]:
    number = -(-group.count // size)
    least, larger = divmod(group.count, number)
    return [Part(group, least + (index < larger)) for index in range(number)]


def pages_folder(index: Path) -> Path:
    """Return the folder that holds the pages of a gallery, beside its index."""
    return index.with_name(index.name + ".pages")


def page_name(number: int) -> str:
    """Return the file name of a page; the first page has number 1."""
    return f"{number:04}.html"
