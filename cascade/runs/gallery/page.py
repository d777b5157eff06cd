"""Writes one page of a gallery as a file of HTML that holds its thumbnails and fetches nothing."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from cascade.imaging.thumbnail import thumbnail_base64
from cascade.runs.gallery.entries import Entry

__all__ = ["PageWriter", "link", "script_json", "template"]

_FOLDER: Final = Path(__file__).parent
_DATA: Final = "<!--DATA-->\n"
_STYLE: Final = "/*STYLE*/\n"
#: Pixels of the longer side of a thumbnail.
_SIDE: Final = 200
#: Photos in one script element. A browser parses each element at a stroke.
_CHUNK: Final = 200
#: Thumbnails per thread that may wait to be written.
_AHEAD: Final = 16


@dataclass(frozen=True, slots=True)
class PageWriter:
    """Writes pages; the threads that make thumbnails are shared by all of them.

    Attributes:
        about: what every page knows of the run, ready to become JSON.
        pool: makes thumbnails.
        workers: threads of the pool.
        max_pixels: photos with more pixels get no thumbnail.
        advance: called after every photo.
    """

    about: dict[str, Any]
    pool: ThreadPoolExecutor
    workers: int
    max_pixels: int
    advance: Callable[[], None]

    def write(
        self, file: IO[str], entries: Iterable[Entry], folder: Path, pages: dict[str, Any] | None
    ) -> None:
        """Write one page.

        Args:
            file: open for text in UTF-8.
            entries: the photos.
            folder: in which the page will stand; links to photos begin there.
            pages: see `cascade.runs.gallery.index.page_links`; None for a gallery of one page.
        """
        head, tail = template("page.html")
        file.write(f"{head}<script>const about = {script_json(self.about | {'pages': pages})};</script>\n")
        real = folder.resolve()
        written = 0
        for entry, thumbnail in self._with_thumbnails(entries):
            if written % _CHUNK == 0:
                file.write("</script>\n<script>\n" if written else "<script>\n")
            written += 1
            if entry.failed:
                file.write(f"errors.push({script_json(entry.shown)});\n")
            else:
                more = {"href": link(entry.path, real), "thumb": thumbnail}
                file.write(f"photos.push({script_json(entry.shown | more)});\n")
            self.advance()
        file.write("</script>\n" if written else "")
        file.write(tail)

    def _with_thumbnails(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, str | None]]:
        pending: deque[tuple[Entry, Future[str | None]]] = deque()
        for entry in entries:
            pending.append((entry, self.pool.submit(_thumbnail, entry, self.max_pixels)))
            if len(pending) > _AHEAD * self.workers:
                first, made = pending.popleft()
                yield first, made.result()
        for first, made in pending:
            yield first, made.result()


def _thumbnail(entry: Entry, max_pixels: int) -> str | None:
    return None if entry.failed else thumbnail_base64(entry.path, _SIDE, max_pixels=max_pixels)


def template(name: str) -> tuple[str, str]:
    """Return what stands before and after the data of a page; the style is inside of it."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    head, tail = text.replace(_STYLE, (_FOLDER / "style.css").read_text(encoding="utf-8")).split(_DATA)
    return head, tail


def link(path: str, folder: Path) -> str:
    """Return a relative link to a file. ``:`` is quoted too, so no name can begin with ``javascript:``."""
    try:
        return quote(os.fsencode(os.path.relpath(Path(path).absolute(), folder)))
    except ValueError:  # another drive, on Windows
        return Path(path).absolute().as_uri()


def script_json(value: Any) -> str:
    """Return JSON that may stand inside a script element: no name can end it or start a comment."""
    return json.dumps(value).replace("<", "\\u003c")
