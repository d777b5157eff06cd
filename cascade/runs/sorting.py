"""Sorts photos into folders by label, as links, copies or moved files, and takes that back.

An undo file names every step before it is taken. Nothing is ever overwritten: a name that is taken becomes
"beach (2).jpg". Photos without an answer (errors) stay where they are. `undo_sorting` takes back only what is
still as it was left.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

from cascade.errors import OutputError, UsageError
from cascade.ownership import check_writable
from cascade.runs.replacement import replacing
from cascade.runs.rows import Row, path_of

__all__ = [
    "SORT_MODES",
    "UndoFile",
    "Undone",
    "check_target",
    "folder_name",
    "place",
    "plan_sorting",
    "sort_photos",
    "undo_sorting",
]

SORT_MODES: Final = ("link", "copy", "move")

_MAX_NUMBER: Final = 100_000
_STEP: Final = '{"mode": "'


@dataclass(frozen=True, slots=True)
class Undone:
    """What `undo_sorting` did.

    Attributes:
        undone: steps taken back.
        left: (path, reason) of steps that were not.
    """

    undone: int
    left: tuple[tuple[str, str], ...]


def check_target(target: Path, roots: Iterable[str], option: str = "--sort-into") -> None:
    """Refuse a folder that cannot be written, or where the next run would find its own results.

    Raises:
        UsageError: when it is inside a folder that is classified.
        OutputError: when it cannot be made or written.
    """
    there = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.exists())
    check_writable(there, option)
    real = target.resolve()
    for root in roots:
        if real.is_relative_to(Path(root).resolve()):
            raise UsageError(f"{option} {target}: is inside {root}; take one outside")


def plan_sorting(rows: Iterable[Row]) -> Counter[str]:
    """Return how many photos would go into the folder of each label."""
    return Counter(folder_name(row["label"]) for row in rows if row["label"] is not None)


def folder_name(label: str) -> str:
    """Return a label as the name of one folder, whatever a bundle calls its labels."""
    return re.sub(r"[^\w .,()+-]", "_", label).strip(" .") or "_"


def sort_photos(rows: Iterable[Row], target: Path, mode: str) -> tuple[Path | None, Counter[str]]:
    """Sort photos into folders.

    Args:
        rows: those with an answer are sorted.
        target: the folder in which label folders are made.
        mode: ``"link"`` makes symbolic links, ``"copy"`` copies with the time of the photo, ``"move"`` moves.

    Returns:
        The undo file (None when nothing was put anywhere), and counts: ``sorted``, ``already there``,
        ``missing``.

    Raises:
        OutputError: when a folder or file cannot be written. What was done so far is in the undo file.
    """
    counts: Counter[str] = Counter()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with UndoFile(target) as undo:
            for row in rows:
                if row["label"] is not None:
                    source = Path(path_of(row))
                    folder = target / folder_name(row["label"])
                    folder.mkdir(exist_ok=True)
                    counts[place(source, folder, mode, undo)[0]] += 1
    except OSError as error:
        hint = "; links may not be allowed here: try --sort-mode copy" if mode == "link" else ""
        raise OutputError(
            f"{error.filename or target}: cannot sort ({error.strerror or error}){hint}"
        ) from error
    return undo.path, counts


class UndoFile:
    """Names every step before it is taken; the file is made, in the folder ``target``, with the first."""

    def __init__(self, target: Path) -> None:
        self.path: Path | None = None
        self._target = target
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, step: dict[str, str]) -> None:
        """Name a step before it is taken."""
        if self._file is None:
            self.path, self._file = _new_undo_file(self._target)
        # Surrogates (names that are not UTF-8) survive as JSON escapes.
        self._file.write(json.dumps(step) + "\n")
        self._file.flush()
        if step["mode"] == "move":  # even a power cut must not leave a photo whose old place nobody knows
            os.fsync(self._file.fileno())


def _new_undo_file(target: Path) -> tuple[Path, IO[str]]:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(_MAX_NUMBER):
        path = target / (f"undo-{stamp}.jsonl" if not number else f"undo-{stamp}-{number}.jsonl")
        try:
            return path, path.open("x", encoding="utf-8")
        except FileExistsError:
            continue
    raise FileExistsError(17, "too many undo files", str(target))


def place(source: Path, folder: Path, mode: str, undo: UndoFile) -> tuple[str, Path | None]:
    """Link, copy or move a file into a folder that is there, under a free name; see `sort_photos`.

    Returns:
        "sorted", "already there" or "missing", and where the file is now.

    Raises:
        OSError: when that is not possible.
    """
    if not source.is_file():
        return "missing", None
    for target in _free_names(folder, source.name):
        if os.path.lexists(target):
            if _is_there(source, target, mode):
                return "already there", target
            continue
        step = {"mode": mode, "source": str(source.absolute()), "target": str(target.absolute())}
        undo.write(step)
        try:
            _take(source, target, mode)
        except FileExistsError:  # somebody else took the name just now
            continue
        return "sorted", target
    raise FileExistsError(17, "no free name", str(folder / source.name))


def _free_names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    parts = Path(name)
    for number in range(2, _MAX_NUMBER):
        yield folder / f"{parts.stem} ({number}){parts.suffix}"


def _is_there(source: Path, target: Path, mode: str) -> bool:
    """Whether an earlier run put this photo here."""
    if mode == "link":
        return target.is_symlink() and target.exists() and target.samefile(source)
    if mode == "copy" and target.is_file() and not target.is_symlink():
        return filecmp.cmp(source, target, shallow=False)
    return False


def _take(source: Path, target: Path, mode: str) -> None:
    if mode == "link":
        # Relative, so that the two folders can be moved together; both ends without links of their own.
        start = target.parent.resolve()
        target.symlink_to(os.path.relpath(source.resolve(), start))
        return
    # An empty file of our own holds the name, so that replacing it can overwrite nobody's.
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    if mode == "move":
        try:
            source.replace(target)
            return
        except OSError:  # another disk
            pass
    try:
        with replacing(target) as new:
            shutil.copy2(source, new)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    if mode == "move":
        source.unlink()


def undo_sorting(undo_file: Path) -> Undone:
    """Take back what an undo file names, last step first.

    Links and copies are deleted if they are still what was made; moved photos go back if their old name is
    free. Folders that become empty are removed, and the undo file if nothing is left to undo.

    Raises:
        UsageError: when the file is no undo file.
        OutputError: when something cannot be changed.
    """
    steps = _read_steps(undo_file)
    undone, left = 0, []
    folders = set()
    for step in reversed(steps):
        source, target = Path(step["source"]), Path(step["target"])
        folders.add(target.parent)
        try:
            reason = _undo_step(step["mode"], source, target)
        except OSError as error:
            raise OutputError(f"{target}: cannot be put back ({error.strerror or error})") from error
        if reason is None:
            undone += 1
        else:
            left.append((str(target), reason))
    if not left:
        undo_file.unlink()
    for folder in folders:
        _remove_empty(folder, undo_file.parent.absolute())
    return Undone(undone, tuple(left))


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder that is empty, and then those above it that are below ``top`` and empty too."""
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent if folder.parent.is_relative_to(top) else top


def _read_steps(undo_file: Path) -> list[dict[str, str]]:
    try:
        *lines, unfinished = undo_file.read_text(encoding="utf-8").split("\n")
        # A last line without its end is a step that was not taken any more.
        steps = [json.loads(line) for line in lines]
        begins_like_a_step = unfinished.startswith(_STEP) or _STEP.startswith(unfinished)
        if begins_like_a_step and all(
            step["mode"] in SORT_MODES and step["source"] and step["target"] for step in steps
        ):
            return steps
    except OSError as error:
        raise UsageError(f"{undo_file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"{undo_file}: is no undo file of cascade")


def _undo_step(mode: str, source: Path, target: Path) -> str | None:
    """Return None when the step is undone (or was never taken), else why not."""
    if not os.path.lexists(target):
        return None if mode != "move" or source.exists() else "is gone, and so is the photo it came from"
    if mode == "link":
        if not target.is_symlink() or target.resolve() != source.resolve():
            return "is no longer the link that was made"
        target.unlink()
        return None
    if target.stat().st_size == 0 and source.exists() and source.stat().st_size > 0:
        target.unlink()  # the name was taken, and then the run was killed
        return None
    if mode == "copy":
        if not source.is_file() or not filecmp.cmp(source, target, shallow=False):
            return "is the only copy, or was changed"
        target.unlink()
        return None
    if os.path.lexists(source):
        return f"its old place is taken: {source}"
    source.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(target, source)
    return None
