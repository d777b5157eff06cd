"""Makes a better bundle from a bundle and corrections, in minutes and without its training photos.

    corrections -> embeddings -> heads (with memory) -> graphs -> arbiter, router, promises -> comparison

The networks below their heads stay as they are. Of the corrections 70 % are learned from; the rest is held
out, and says whether the new bundle is better.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cascade.bundle.manifest import Bundle
from cascade.errors import DataError, UsageError
from cascade.evaluation.dataset import Dataset, Photo, scan
from cascade.labels import LabelTree
from cascade.ownership import check_bundle_target, empty_scratch
from cascade.training.export.earlier_bundle import recipe_facts, whole
from cascade.training.export.packaging import take_place
from cascade.training.learning.embeddings import Embedded, embed
from cascade.training.learning.memory import MEMORY_FILE, Memory, read_memory
from cascade.training.learning.new_bundle import Grown, make_bundle
from cascade.training.learning.new_labels import grown_tree
from cascade.training.learning.relearn import Experience, relearn
from cascade.training.learning.remember import ImageStages, heads_of, memory_of
from cascade.training.learning.verdict import what_became_worse
from cascade.training.project import readable
from cascade.training.training_log import TrainingLog

__all__ = ["LearnOptions", "learn"]

#: With fewer corrections neither a fit nor a comparison says anything.
_FEWEST: Final = 20
_FIRST_VERSION: Final = "0.1.0"


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """How a bundle learns.

    Attributes:
        name: of the new bundle; the name of its folder if None.
        version: of the new bundle; 0.1.0 if None.
        max_error: see `cascade.training.run.train`.
        label_map: name of a folder or label -> label that it stands for.
        parents: new label -> its group.
        experts: new expert -> folder of LABEL/FILE with its photos.
        memory: folders of photos that the bundle was made from; they take the place of its memory.
        replace: whether a bundle at the target may be replaced.
        force: write the new bundle even if it is worse.
    """

    name: str | None = None
    version: str | None = None
    max_error: float = 0.15
    label_map: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    experts: Mapping[str, Path] = field(default_factory=dict)
    memory: tuple[Path, ...] = ()
    replace: bool = False
    force: bool = False


def learn(bundle: Path | None, corrections: Sequence[Path], out: Path, options: LearnOptions) -> None:
    """Learn from corrections and write the result as a new bundle.

    Args:
        bundle: folder; None is the shipped one.
        corrections: folders of LABEL/FILE and files of corrections, see `cascade.evaluation.dataset.scan`;
            photos of new experts need not be among them.
        out: folder of the new bundle.
        options: see there.

    Raises:
        OutputError: at once, when something at ``out`` would be lost.
        BundleError: when the bundle is damaged, or has no heads that could be fitted anew.
        DataError: when photos are missing or too few, when there is no memory, or when the new bundle would
            be worse and ``force`` is not given.
        UsageError: when a new expert or group makes no sense.
    """
    check_bundle_target(out, replace=options.replace)
    work = out.with_name(out.name + ".learn")
    empty_scratch(work / "bundle")
    old = whole(Bundle.load(bundle))
    dataset, expert_labels = _photos(old, corrections, options, work)
    groups = {label: name for name, labels in expert_labels.items() for label in labels}
    tree = grown_tree(old.tree, [photo.label for photo in dataset.photos], options.parents, groups)
    with TrainingLog() as log:
        _introduce(old.tree, tree, dataset, log)
        stages = ImageStages(old.folder, old.general, old.experts)
        memory = _memory(old, dataset, options, log)
        study, held_out = (_embedded(stages, dataset, part, log) for part in ("train", "test"))
        _, seed = recipe_facts(old.provenance)
        experience = Experience(stages, heads_of(stages), memory, study, seed)
        heads = relearn(experience, tree, expert_labels, log)
        folder = work / "bundle"
        folder.mkdir(parents=True)
        title = (options.name or out.name, options.version or _FIRST_VERSION)
        grown = Grown(old, tree, experience, heads, held_out, dataset)
        found = make_bundle(folder, grown, title, options.max_error, log)
        for each in found:
            for line in each.lines():
                log.line(line)
        worse = what_became_worse(found[0], found[1:])
        if worse and not options.force:
            shutil.rmtree(folder)
            _leave(work)
            raise DataError(
                f"nothing was written, because the new bundle would be worse: {'; '.join(worse)}. Keep the "
                "old one, correct more photos (right answers that were accepted help, too), give --memory "
                "with photos that the bundle was trained on, or write it all the same with --force"
            )
        for line in worse:
            log.line(f"warning: {line}; written because of --force")
        take_place(folder, out)
        _leave(work)
        log.line(f"wrote {out}; check it with: cascade verify --bundle {out}")


def _leave(work: Path) -> None:
    """Remove the working folder; what else is in there is not ours."""
    (work / "unreadable.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        work.rmdir()


def _photos(
    old: Bundle, corrections: Sequence[Path], options: LearnOptions, work: Path
) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    """Return all photos, in the splits `train` and `test`, and new expert -> its labels."""
    taken = {"general", *(expert.name for expert in old.experts)}
    for name in options.experts:
        if name in taken or not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
            why = (
                "there is a stage of this name"
                if name in taken
                else "give it a name of letters, digits and _"
            )
            raise UsageError(f"--add-expert {name}: {why}")
    own: dict[str, tuple[str, ...]] = {}
    for name, folder in options.experts.items():
        own[name] = scan(folder, label_map=_map_of(folder, options.label_map)).labels
        if len(own[name]) < 2:
            raise DataError(f"{folder}: holds one label; an expert tells at least two apart")
    roots = [*corrections, *options.experts.values()]
    dataset = readable(scan(roots, label_map=options.label_map), work)
    if len(dataset.photos) < _FEWEST:
        named = " ".join(str(root) for root in roots)
        raise DataError(
            f"{named}: has {len(dataset.photos)} photos to learn from; at least {_FEWEST} are needed"
        )
    photos = tuple(
        photo if photo.split == "train" else replace(photo, split="test") for photo in dataset.photos
    )
    return Dataset(dataset.folder, photos, dataset.dropped), own


def _map_of(folder: Path, label_map: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a label map that names folders which are there."""
    return {name: label for name, label in label_map.items() if next(folder.glob(f"**/{name}"), None)}


def _introduce(old: LabelTree, tree: LabelTree, dataset: Dataset, log: TrainingLog) -> None:
    study, held_out = (len(dataset.split(part)) for part in ("train", "test"))
    log.line(f"{study} photos are learned from, {held_out} are held out to compare before and after")
    for label in tree.labels[len(old.labels) :]:
        count = sum(photo.label == label for photo in dataset.photos)
        log.line(f"new label: {label}, in the group {tree.parent_of[label]}, {count} photos")
    for path, reason in dataset.dropped[:20]:
        log.line(f"left out {path}: {reason}")
    if len(dataset.dropped) > 20:
        log.line(f"left out {len(dataset.dropped) - 20} more")


def _memory(old: Bundle, dataset: Dataset, options: LearnOptions, log: TrainingLog) -> Memory:
    """Return what keeps the bundle from forgetting: photos of the user, else the memory of the bundle."""
    path = old.folder / MEMORY_FILE
    kept = read_memory(path) if path.is_file() else None
    if not options.memory:
        if kept is None:
            raise DataError(
                f"{old.folder}: has no {MEMORY_FILE}, so it would forget what it knows; give photos that it "
                "was trained on, or others of all its labels, with --memory DATA"
            )
        log.line(f"memory of the bundle: {len(kept)} photos, without the photos")
        return kept
    seen = {photo.sha256 for photo in dataset.photos}
    photos = [photo for photo in scan(options.memory, old.tree.labels).photos if photo.sha256 not in seen]
    stages = ImageStages(old.folder, old.general, old.experts)
    memory = memory_of(stages, photos, (), log)
    log.line(f"memory: {len(memory)} of {len(photos)} photos")
    if kept is None:
        return memory
    return replace(memory, strangers=kept.strangers, stranger_sources=kept.stranger_sources)


def _embedded(stages: ImageStages, dataset: Dataset, part: str, log: TrainingLog) -> Embedded:
    photos: tuple[Photo, ...] = dataset.split(part)
    what = "embeddings of corrections" if part == "train" else "embeddings of those held out"
    found = embed(
        stages.folder,
        stages.general,
        stages.experts,
        photos,
        lambda done, total: log.step("bundle", what, done, total),
    )
    if not found.photos:
        raise DataError(f"{dataset.folder}: none of its photos of the part {part!r} can be read")
    return found


def labels_of(embedded: Embedded) -> list[str]:
    """Return the labels of embedded photos."""
    return [photo.label for photo in embedded.photos]
