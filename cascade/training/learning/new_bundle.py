"""Writes the bundle that learned: graphs with new heads, what is calibrated, and its new memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import onnx

import cascade
from cascade.arrays import Bools, Float32s
from cascade.bundle.manifest import MANIFEST, Bundle
from cascade.bundle.stage import Expert, General, GraphFile, ImageStage
from cascade.evaluation.dataset import Dataset
from cascade.labels import LabelTree
from cascade.training.calibration.outlier_exposure import Strangers
from cascade.training.calibration.stage_logits import StageLogits
from cascade.training.export.bundle_documents import seal
from cascade.training.export.calibration_outputs import CalibrationOutputs
from cascade.training.export.earlier_bundle import recipe_facts, training_facts
from cascade.training.export.finish_bundle import Draft, data_summary, finish_with
from cascade.training.export.readable_json import readable_json
from cascade.training.learning.embeddings import Embedded
from cascade.training.learning.heads import Head, replace_head, write_graph
from cascade.training.learning.memory import MEMORY_FILE, Memory, write_memory
from cascade.training.learning.relearn import Experience, NewHead
from cascade.training.learning.verdict import Compared, answers, compare
from cascade.training.training_log import TrainingLog

__all__ = ["Grown", "make_bundle"]

#: Corrections of which nobody says where they come from are a source of their own.
_SOURCE: Final = "corrections"
#: Share of the strangers in memory that the scope stage is not built from.
_STRANGERS_HELD_OUT: Final = 0.25
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Grown:
    """What the new bundle is made from.

    Attributes:
        old: the bundle that learned.
        tree: labels of the new one.
        experience: what it learned from.
        heads: image stages of the new bundle, the general model's first.
        held_out: corrections that nothing was learned from.
        dataset: all corrections.
    """

    old: Bundle
    tree: LabelTree
    experience: Experience
    heads: Sequence[NewHead]
    held_out: Embedded
    dataset: Dataset


def make_bundle(
    folder: Path, grown: Grown, title: tuple[str, str], max_error: float, log: TrainingLog
) -> list[Compared]:
    """Write the new bundle into an empty folder, and compare it with the old one.

    Args:
        folder: to write into.
        grown: what it is made from.
        title: name and version.
        max_error: see `cascade.training.run.train`.
        log: is told about progress.

    Returns:
        The comparison on the corrections that were held out, then those on what was known before.
    """
    old, heads = grown.old, grown.heads
    words, seed = recipe_facts(old.provenance)
    stages = [_write_stage(old.folder, head, folder, " ".join(title)) for head in heads]
    variants = sorted({name for stage in stages for name in stage.variants})
    if variants:
        log.line(f"the variant {', '.join(variants)} has the same new heads as the exact graphs")
    _write_memory(folder, grown)
    learned: dict[str, Any] = {
        "cascade": cascade.__version__,
        "bundle": {"name": old.name, "version": old.version},
        "data": data_summary(grown.dataset),
        "memory_photos": len(grown.experience.memory),
        "new_labels": list(grown.tree.labels[len(old.tree.labels) :]),
        "new_experts": [head.name for head in heads if head.name != head.base.name],
    }
    provenance = dict(old.provenance) | {"learned": learned}
    general, *experts = stages
    draft = Draft(
        *title,
        grown.tree,
        cast(General, general),
        cast(tuple[Expert, ...], tuple(experts)),
        provenance,
        words,
        training_facts(old.folder),
        seed,
    )
    finish_with(
        folder,
        draft,
        _calibration_outputs(grown),
        grown.held_out.photos,
        log=log,
        max_error=max_error,
    )
    found = _compare(grown, Bundle.load(folder))
    _record(folder, found, learned)
    return found


def _write_stage(source: Path, head: NewHead, folder: Path, title: str) -> ImageStage:
    """Write the exact graph of a stage and its variants, with the same head in each."""
    general = head.base.name == "general"
    outputs = ["logits"] if general and head.name != "general" else None

    def write(file: str, name: str) -> str:
        model = replace_head(onnx.load(source / file), head.learned.head, str(source / file), outputs=outputs)
        return write_graph(model, folder / name, stage=head.name, labels=head.labels, title=title)

    variants = {}
    for variant, graph in head.base.variants.items():
        name = f"{head.name}.{variant}.onnx"
        variants[variant] = GraphFile(file=name, sha256=write(graph.file, name))
    name = f"{head.name}.onnx"
    sha256 = write(head.base.file, name)
    if head.name == head.base.name:
        return head.base.replace(sha256=sha256, file=name, labels=head.labels, variants=variants)
    return Expert(
        name=head.name,
        file=name,
        sha256=sha256,
        labels=head.labels,
        cost=head.base.cost,
        input=head.base.input,
        takes=head.base.takes,
        variants=variants,
    )


def _logits(grown: Grown, memory_rows: Bools) -> dict[str, Float32s]:
    """Return image stage -> logits of photos in memory, by the new heads."""
    memory = grown.experience.memory
    return {
        head.name: head.learned.head.logits(memory.of[head.base.name][memory_rows]) for head in grown.heads
    }


def _calibration_outputs(grown: Grown) -> CalibrationOutputs:
    """Return what the new bundle is calibrated on: memory that no head was fitted on, and the corrections,
    each by heads that were fitted without it."""
    memory, study, tree = grown.experience.memory, grown.experience.study, grown.tree
    rows = memory.part("calibration")
    known = _logits(grown, rows)
    logits = {head.name: np.concatenate([known[head.name], head.learned.new_logits]) for head in grown.heads}
    labels = [label for label, one in zip(memory.labels, rows, strict=True) if one]
    labels += [photo.label for photo in study.photos]
    sources = [source for source, one in zip(memory.sources, rows, strict=True) if one]
    sources += [photo.source or _SOURCE for photo in study.photos]
    general = grown.heads[0]
    outputs = StageLogits(
        logits[general.name],
        {head.name: logits[head.name] for head in grown.heads[1:]},
        np.array([tree.labels.index(label) for label in labels]),
        tuple(sources) if any(sources) else (),
    )
    embedding = np.concatenate([memory.of[general.name][rows], study.of[general.name]])
    return CalibrationOutputs(outputs, embedding, _strangers(grown))


def _strangers(grown: Grown) -> Strangers | None:
    """Return the strangers in memory that are still strange: none of the new labels."""
    memory, head = grown.experience.memory, grown.heads[0].learned.head
    if not len(memory.strangers):
        return None
    logits = head.logits(memory.strangers)
    strange = logits.argmax(axis=1) < len(grown.old.tree.labels)
    if not strange.any():
        return None
    sources = tuple(source for source, one in zip(memory.stranger_sources, strange, strict=True) if one)
    held_out = np.random.default_rng(_SEED).random(len(sources)) < _STRANGERS_HELD_OUT
    return Strangers(logits[strange], memory.strangers[strange], sources, held_out)


def _compare(grown: Grown, new: Bundle) -> list[Compared]:
    old, tree, memory = grown.old, grown.tree, grown.experience.memory
    count = len(tree.labels)
    held = {
        "before": {
            name: head.logits(grown.held_out.of[name]) for name, head in grown.experience.heads.items()
        },
        "after": {h.name: h.learned.head.logits(grown.held_out.of[h.base.name]) for h in grown.heads},
    }
    truth = np.array([tree.labels.index(photo.label) for photo in grown.held_out.photos])
    before, after = answers(old, held["before"], count), answers(new, held["after"], count)
    known, rows = truth < len(old.tree.labels), memory.part("calibration")
    found = [compare("corrections that were held out", before, after, truth)]
    if not known.all():
        found += [
            compare("of them, those of labels that were known", before[known], after[known], truth[known]),
            compare("of them, those of new labels", before[~known], after[~known], truth[~known]),
        ]
    remembered = {name: head.logits(memory.of[name][rows]) for name, head in grown.experience.heads.items()}
    targets = np.array(
        [tree.labels.index(label) for label, one in zip(memory.labels, rows, strict=True) if one],
        dtype=np.int64,
    )
    found.append(
        compare(
            "photos that are remembered, and no head was fitted on",
            answers(old, remembered, count),
            answers(new, _logits(grown, rows), count),
            targets,
        )
        if rows.any()
        else None
    )
    return [each for each in found if each is not None]


def _record(folder: Path, found: Sequence[Compared], learned: dict[str, Any]) -> None:
    """Write what changed into the manifest and the card, and hash all files anew."""
    path, card = folder / MANIFEST, folder / "README.md"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    learned["compared"] = {each.name: each.to_dict() for each in found}
    manifest["provenance"]["learned"] = learned
    path.write_text(readable_json(manifest), encoding="utf-8")
    lines = ["", "## Learned from corrections", "", _sentence(learned), ""]
    lines += ["| photos | | before | after | change (95 %) |", "|---|---|---|---|---|"]
    for each in found:
        low, high = each.change.interval
        before, after = (f"{right / each.photos:.1%}" for right in each.right)
        change = f"{each.change.difference:+.1%} ({low:+.1%} to {high:+.1%})"
        lines.append(f"| {each.name} | {each.photos} | {before} | {after} | {change} |")
    with card.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    seal(folder)


def _sentence(learned: dict[str, Any]) -> str:
    bundle, photos = learned["bundle"], learned["data"]["photos"]
    said = (
        f"By `cascade learn`, from the bundle `{bundle['name']}` {bundle['version']}, "
        f"{photos.get('train', 0)} corrections and {learned['memory_photos']} photos that it remembered; the "
        f"networks below the heads stayed as they were. {photos.get('test', 0)} corrections were held out."
    )
    for what, names in (("New labels", learned["new_labels"]), ("New experts", learned["new_experts"])):
        said += f" {what}: {', '.join(names)}." if names else ""
    return said


def _write_memory(folder: Path, grown: Grown) -> None:
    """Write the memory of the new bundle: the old one and the corrections."""
    old = grown.experience.memory
    memory = old.joined(_as_memory(grown.experience.study, "train"))
    memory = memory.joined(_as_memory(grown.held_out, "calibration"))
    heads: dict[str, Head] = {head.name: head.learned.head for head in grown.heads}
    of = {head.name: memory.of[head.base.name] for head in grown.heads}
    write_memory(folder / MEMORY_FILE, replace(memory, of=of), heads)


def _as_memory(embedded: Embedded, part: str) -> Memory:
    photos = embedded.photos
    return Memory(
        tuple(photo.label for photo in photos),
        (part,) * len(photos),
        tuple(photo.source or _SOURCE for photo in photos),
        embedded.of,
    )
