"""Writes the gallery of a run: one page for a small run, an index and a folder of pages for a large one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from cascade.errors import OutputError
from cascade.labels import LabelTree
from cascade.ownership import remove_pages
from cascade.runs.gallery.entries import Entries, Entry
from cascade.runs.gallery.index import page_links, write_index
from cascade.runs.gallery.page import PageWriter
from cascade.runs.gallery.plan import PAGE_SIZE, Part, page_name, pages_folder, plan_pages
from cascade.runs.replacement import replacing, unused_name
from cascade.runs.rows import Row

__all__ = ["write_gallery"]


def write_gallery(
    path: Path,
    rows: Iterable[Row],
    tree: LabelTree,
    bundle: str,
    *,
    max_pixels: int,
    workers: int,
    advance: Callable[[], None] = lambda: None,
    page_size: int = PAGE_SIZE,
) -> int:
    """Write a gallery, replacing one that is there. Memory does not grow with the number of photos.

    Args:
        path: the HTML file. It appears when the gallery is complete.
        rows: of the run.
        tree: of the bundle; orders the labels.
        bundle: see `cascade.runs.rows.bundle_id`.
        max_pixels: as for classifying; larger photos get no thumbnail.
        workers: threads that make thumbnails.
        advance: called after every photo.
        page_size: the largest number of photos on a page.

    Returns:
        How many pages stand in the folder beside ``path``; 0 when ``path`` holds every photo itself.

    Raises:
        OutputError: when the gallery cannot be written, or its folder holds files that cascade did not write.
    """
    about = {
        "bundle": bundle,
        "order": list(tree.labels),
        "parents": list(tree.parents),
        "parentOf": tree.parent_of,
    }
    try:
        with Entries(tree) as entries, ThreadPoolExecutor(workers, thread_name_prefix="thumbnail") as pool:
            for row in rows:
                entries.add(row)
            plan = plan_pages(entries.groups(), page_size)
            writer = PageWriter(about, pool, workers, max_pixels, advance)
            if len(plan) > 1:
                _write_pages(path, iter(entries), plan, writer, bundle)
                return len(plan)
            with replacing(path) as new, new.open("w", encoding="utf-8") as file:
                writer.write(file, entries, path.parent, None)
            remove_pages(pages_folder(path))
            return 0
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _write_pages(
    index: Path, entries: Iterator[Entry], plan: Sequence[Sequence[Part]], writer: PageWriter, bundle: str
) -> None:
    """Write every page into a new folder, put the folder in place, and then write the index."""
    folder = pages_folder(index)
    new = unused_name(index.parent)
    new.mkdir()
    try:
        for number, parts in enumerate(plan, 1):
            page = islice(entries, sum(part.count for part in parts))
            with (new / page_name(number)).open("x", encoding="utf-8") as file:
                # Both folders have the same parent, so relative links stay right.
                writer.write(file, page, folder, page_links(index, number, len(plan)))
        remove_pages(folder)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    with replacing(index) as file_path, file_path.open("w", encoding="utf-8") as file:
        write_index(file, index, plan, bundle)
