"""Makes a clean copy of labelled photos: links in SPLIT/LABEL/FILE as decided, a manifest, an undo file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade.audit.decisions import ACTIONS, Decision
from cascade.audit.listing import Listed
from cascade.errors import DataError, OutputError, UsageError
from cascade.imaging.files import readable
from cascade.runs.replacement import replacing
from cascade.runs.sorting import UndoFile, check_target, folder_name, place

__all__ = ["Cleaned", "Plan", "apply_decisions", "plan_changes"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of every photo.

    Attributes:
        kept: photos with the labels that they will have.
        changed: action -> how many photos.
        measured: how many of them are of the split `test`.
    """

    kept: tuple[Listed, ...]
    changed: Counter[str]
    measured: int


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A clean copy.

    Attributes:
        placed: how many photos it holds.
        missing: how many vanished since they were listed.
        undo_file: takes it back; None if there is nothing to take back.
    """

    placed: int
    missing: int
    undo_file: Path | None


def plan_changes(photos: Sequence[Listed], decisions: Iterable[Decision], *, edit_test: bool) -> Plan:
    """Return what becomes of photos.

    Args:
        photos: of the folders that were audited.
        decisions: what a person has decided.
        edit_test: change photos of the split `test` too, if that was decided.

    Raises:
        DataError: when decisions name no photo of these folders, or give one photo two labels.
        UsageError: when photos of `test` would be changed without ``edit_test``.
    """
    actions: dict[str, str] = {}
    labels: dict[str, str] = {}
    known = {photo.shown for photo in photos}
    for decision in decisions:
        path, action = decision.finding.path, decision.action
        if path not in known:
            continue
        actions[path] = max(actions.get(path, "keep"), action, key=ACTIONS.index)
        if action == "relabel":
            wanted = decision.finding.suggested.strip()
            if labels.setdefault(path, wanted) != wanted:
                raise DataError(f"{path}: is to be {labels[path]!r} and {wanted!r}; decide for one label")
    if not actions:
        raise DataError("the decisions name none of these photos; give the folders that were audited")
    kept, changed, measured = [], Counter[str](), 0
    for photo in photos:
        action = actions.get(photo.shown, "keep")
        if action != "keep":
            changed[action] += 1
            measured += photo.split == "test"
        if action != "remove":
            label = labels[photo.shown] if action == "relabel" else photo.label
            kept.append(Listed(photo.path, label, photo.split, photo.source))
    if measured and not edit_test:
        raise UsageError(
            f"the decisions change {measured} photos of the split test, on which accuracy is measured; "
            "set them to keep, or give --edit-test if that is meant"
        )
    return Plan(tuple(kept), changed, measured)


def apply_decisions(
    plan: Plan, target: Path, manifest: Path, roots: Sequence[Path], *, mode: str = "link"
) -> Cleaned:
    """Make the clean copy; the photos themselves are not touched.

    Args:
        plan: see `plan_changes`.
        target: a folder outside of the audited ones that is empty or not there.
        manifest: a file named manifest.csv where the list of its photos, with their sources, is kept; the
            clean copy gets a copy of it.
        roots: the audited folders.
        mode: "link" or "copy".

    Raises:
        UsageError: when ``target`` is inside of an audited folder.
        OutputError: when it is not empty or cannot be written. What was done is in the undo file.
    """
    check_target(target, [str(root) for root in roots], "--clean")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(
            f"{target}: is not empty; take it back with cascade undo {target}/undo-*.jsonl, "
            "or give --clean another folder"
        )
    counts: Counter[str] = Counter()
    rows = [("file", "split", "label", "source")]
    try:
        target.mkdir(parents=True, exist_ok=True)
        with UndoFile(target) as undo:
            for photo in plan.kept:
                folder = target / photo.split / folder_name(photo.label)
                folder.mkdir(parents=True, exist_ok=True)
                outcome, there = place(Path(photo.path), folder, mode, undo)
                counts[outcome] += 1
                if there is not None:
                    name = readable(there.relative_to(target).as_posix())
                    rows.append((name, photo.split, photo.label, photo.source))
            _write_manifest(manifest, rows)
            place(manifest, target, "copy", undo)
    except OSError as error:
        hint = "; links may not be allowed here: try --copy" if mode == "link" else ""
        raise OutputError(
            f"{error.filename or target}: cannot be made ({error.strerror or error}){hint}"
        ) from error
    return Cleaned(counts["sorted"], counts["missing"], undo.path)


def _write_manifest(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
