"""Finds the photos in the files and folders that a user names.

The order is stable: by name within each folder. Only one folder's names are held in memory at a time.

In a folder, a file is a photo when its name ends like one or its first bytes are those of an image. Other
files are counted and left alone. A file that the user names is always a photo: if it is none, its row says
so.

Hidden names are passed over unless asked for. A link to a folder is not followed unless asked for, and a link
to a file only inside the folder that was given. When links are followed, every folder is entered once, so
that loops end.
"""

# Plain strings keep a path as the user wrote it ("./a//b"), and a million Path objects cost.
# ruff: noqa: PTH100, PTH110, PTH112, PTH114, PTH116, PTH118, PTH122

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cascade.errors import UsageError
from cascade.imaging.recognition import PHOTO_SUFFIXES, is_named_like_an_archive, looks_like_photo
from cascade.prediction import ErrorInfo

__all__ = [
    "FindOptions",
    "Found",
    "find_changed",
    "find_photos",
    "look_at",
    "printable",
    "readable",
]


@dataclass(frozen=True, slots=True)
class Found:
    """A photo, or a place where photos could not be looked for.

    Attributes:
        path: as the user gave it, or below what the user gave; bytes that are not UTF-8 are surrogates. Of a
            photo that is no local file it is the name alone, which is the same in every run.
        size: bytes; -1 if the file could not be looked at (classifying it then says why).
        mtime_ns: time of the last change, nanoseconds since 1970; 0 likewise. Of a photo in an archive it is
            that of the archive.
        error: why there is nothing to classify, e.g. for a folder that may not be entered.
        read: returns the bytes of a photo that is no local file, on any thread and at any time; raises
            `ImageError`. None means that ``path`` is a local file.
    """

    path: str
    size: int = -1
    mtime_ns: int = 0
    error: ErrorInfo | None = None
    read: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FindOptions:
    """What is looked into.

    Attributes:
        follow_links: follow links out of the folders that were given, and links to folders.
        hidden: look at names that begin with a dot.
        archives: look into the tar archives and Parquet files of folders; those that are named are always
            looked into.
        image_column: column of Parquet files that holds the photos; None finds it.
        left_out: counts what was passed over, by reason; filled while `find_photos` runs.
    """

    follow_links: bool = False
    hidden: bool = False
    archives: bool = False
    image_column: str | None = None
    left_out: Counter[str] = field(default_factory=Counter, compare=False)

    def uncounted(self) -> FindOptions:
        """Return the same options with a count of their own, for a second look at the same folders."""
        return replace(self, left_out=Counter())


def find_photos(roots: Sequence[str], options: FindOptions | None = None) -> Iterator[Found]:
    """Find the photos of files and folders, recursively.

    A file that is reached in two ways, because arguments repeat or contain each other, is found once.

    Args:
        roots: files and folders; links among them are followed, since they were named.
        options: see `FindOptions`.

    Raises:
        UsageError: at once, when one of ``roots`` does not exist.
    """
    for root in roots:
        if not os.path.lexists(root):
            raise UsageError(f"{printable(root)}: no such file or folder; check the spelling")
    return _walk(roots, options or FindOptions())


def _walk(roots: Sequence[str], options: FindOptions) -> Iterator[Found]:
    files = list(dict.fromkeys(root for root in roots if not os.path.isdir(root)))
    folders = list(dict.fromkeys(root for root in roots if os.path.isdir(root)))
    named = {os.path.abspath(path) for path in files}
    entered: set[tuple[int, int]] = set()
    for path in files:
        yield look_at(path)
    for folder in folders:
        yield from _walk_folder(folder, _real_prefix(folder), options, named, entered)


def _walk_folder(
    folder: str, inside: str, options: FindOptions, named: set[str], entered: set[tuple[int, int]]
) -> Iterator[Found]:
    # A stack of folders still to enter, deepest last: recursion would fail on very deep trees.
    stack = [folder]
    while stack:
        current = stack.pop()
        try:
            status = os.stat(current)
            identity = (status.st_dev, status.st_ino)
            if identity in entered:
                continue
            entered.add(identity)
            with os.scandir(current) as entries:
                names = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)
        except OSError as error:
            yield Found(current, error=_folder_error(error))
            continue
        below = []
        for name, is_folder, is_link in names:
            path = os.path.join(current, name)
            reason = _why_left_out(path, name, is_folder, is_link, inside, options)
            if reason:
                options.left_out[reason] += 1
            elif is_folder:
                below.append(path)
            elif not named or os.path.abspath(path) not in named:
                yield look_at(path)
        stack += reversed(below)


def _why_left_out(
    path: str, name: str, is_folder: bool, is_link: bool, inside: str, options: FindOptions
) -> str | None:
    """Return why something in a folder is passed over; None if it is a photo or a folder to enter."""
    if name.startswith(".") and not options.hidden:
        return "hidden"
    if is_link and not options.follow_links and (is_folder or not _stays_inside(path, inside)):
        return "links"
    if not is_folder and is_named_like_an_archive(name):
        return None if options.archives else "archives"
    return None if is_folder or _is_photo(path, is_link) else "not photos"


def find_changed(root: str, changed: str, options: FindOptions) -> Iterator[Found]:
    """Find the photos at or below a place inside a folder, by the rules of `find_photos`.

    Args:
        root: a folder or file as the user gave it; what is found is spelled as below it.
        changed: the place.
        options: see `FindOptions`.
    """
    relative = os.path.relpath(changed, root)
    if relative == os.curdir and not os.path.isdir(root):
        yield look_at(root)
        return
    names = Path(relative).parts  # none for "."
    if names[:1] == (os.pardir,):
        return
    path, inside = root, _real_prefix(root)
    for name in names:
        path = os.path.join(path, name)
        if not os.path.lexists(path):  # gone again
            return
        if _why_left_out(path, name, os.path.isdir(path), os.path.islink(path), inside, options):
            return
    if os.path.isdir(path):
        yield from _walk_folder(path, inside, options.uncounted(), set(), set())
    else:
        yield look_at(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _real_prefix(folder: str) -> str:
    real = os.path.realpath(folder)
    return real if real.endswith(os.sep) else real + os.sep


def _stays_inside(path: str, prefix: str) -> bool:
    return os.path.realpath(path).startswith(prefix)


def _is_photo(path: str, is_link: bool) -> bool:
    if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES:
        return True
    if is_link and not os.path.exists(path):
        return False
    return looks_like_photo(path)


def look_at(path: str) -> Found:
    """Return size and time of a file; whatever is wrong with it, classifying it will say."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return Found(path)
    return Found(path, status.st_size, status.st_mtime_ns)


def _folder_error(error: OSError) -> ErrorInfo:
    if isinstance(error, PermissionError):
        return ErrorInfo("not_permitted", "this folder may not be entered; its photos are missing here")
    if isinstance(error, FileNotFoundError):
        return ErrorInfo("not_found", "this folder vanished during the run")
    return ErrorInfo("unreadable", f"this folder cannot be read: {error.strerror or error}")


def readable(path: str | os.PathLike[str]) -> str:
    r"""Return a path that is text: bytes that are not UTF-8, surrogates in ``path``, become ``\xNN``."""
    text = os.fspath(path)
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)


def printable(text: str) -> str:
    r"""Return a text that cannot move the cursor: control characters and stray bytes become ``\xNN``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in readable(text))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
