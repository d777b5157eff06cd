"""A page to look at a run. In: its rows. Out: one HTML file that holds everything, thumbnails included, and
fetches nothing: photos by label, doubtful ones first, with filters by label, by route and by name.

Photos are written one by one, so memory does not grow with their number; the page draws them as one scrolls.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from cascade.errors import OutputError
from cascade.imaging.thumbnail import thumbnail_base64
from cascade.labels import LabelTree
from cascade.runs.rows import Row, path_of

__all__ = ["write_gallery"]

_TEMPLATE: Final = Path(__file__).with_name("gallery.html")
_MARK: Final = "<!--DATA-->\n"
#: Pixels of the longer side, and WebP quality: about 3 kB each, so that 10,000 photos make a page of 40 MB.
_SIDE: Final = 200
_QUALITY: Final = 55
#: Photos in one script element; a browser parses each at a stroke.
_CHUNK: Final = 200


def write_gallery(
    path: Path,
    rows: Iterable[Row],
    tree: LabelTree,
    bundle: str,
    *,
    max_pixels: int,
    workers: int,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the page, replacing one that is there.

    Args:
        path: the HTML file. It appears when it is complete.
        rows: of the run.
        tree: of the bundle; orders the labels.
        bundle: see `cascade.runs.rows.bundle_id`.
        max_pixels: as for classifying; larger photos get no thumbnail.
        workers: threads that make thumbnails.
        advance: called after every photo.

    Raises:
        OutputError: when it cannot be written.
    """
    head, tail = _TEMPLATE.read_text(encoding="utf-8").split(_MARK)
    new = path.with_name(path.name + ".new")
    about = {
        "bundle": bundle,
        "order": list(tree.labels),
        "parents": list(tree.parents),
        "parentOf": tree.parent_of,
    }
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(f"{head}<script>const about = {_json(about)};</script>\n")
            with_thumbnails = _with_thumbnails(rows, max_pixels, workers)
            _write_photos(file, with_thumbnails, path.parent.resolve(), advance)
            file.write(tail)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _write_photos(
    file: IO[str], rows: Iterable[tuple[Row, str | None]], folder: Path, advance: Callable[[], None]
) -> None:
    written = 0
    for row, thumbnail in rows:
        if written % _CHUNK == 0:
            file.write("</script>\n<script>\n" if written else "<script>\n")
        written += 1
        if row["error"] is not None:
            file.write(f"errors.push({_json({'path': row['path'], **row['error']})});\n")
        else:
            file.write(f"photos.push({_json(_photo(row, folder) | {'thumb': thumbnail})});\n")
        advance()
    file.write("</script>\n" if written else "")


def _photo(row: Row, folder: Path) -> dict[str, Any]:
    asked = [expert["name"] for expert in row["experts"]]
    return {
        "path": row["path"],
        "href": _link(path_of(row), folder),
        "label": row["label"],
        "parent": row["parent"],
        "confidence": row["confidence"],
        "reason": row["reason"],
        "route": " + ".join(asked) or "general",
        "guess": row["top"][0]["label"] if row["top"] else "",
        "top": ", ".join(f"{t['label']} {t['probability']:.2f}" for t in row["top"][:3]),
    }


def _link(path: str, folder: Path) -> str:
    """A relative link; quoting also covers ``:``, so that no name can be taken for ``javascript:``."""
    try:
        return quote(os.fsencode(os.path.relpath(Path(path).absolute(), folder)))
    except ValueError:  # another drive, on Windows
        return Path(path).absolute().as_uri()


def _with_thumbnails(rows: Iterable[Row], max_pixels: int, workers: int) -> Iterator[tuple[Row, str | None]]:
    pending: deque[tuple[Row, Future[str | None]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="thumbnail") as pool:
        for row in rows:
            pending.append((row, pool.submit(_thumbnail, row, max_pixels)))
            if len(pending) > 16 * workers:
                first, made = pending.popleft()
                yield first, made.result()
        for first, made in pending:
            yield first, made.result()


def _thumbnail(row: Row, max_pixels: int) -> str | None:
    return None if row["error"] is not None else thumbnail_base64(path_of(row), _SIDE, max_pixels=max_pixels)


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: no name can end it or start a comment."""
    return json.dumps(value).replace("<", "\\u003c")
