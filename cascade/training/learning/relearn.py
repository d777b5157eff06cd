"""Fits the heads of all image stages anew, and those of new experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cascade.arrays import Float32s
from cascade.bundle.stage import ImageStage
from cascade.labels import NOT_MINE, LabelTree
from cascade.training.learning.embeddings import Embedded
from cascade.training.learning.fit_head import widened
from cascade.training.learning.heads import Head
from cascade.training.learning.lessons import Learned, learn_head
from cascade.training.learning.memory import Memory
from cascade.training.learning.new_expert import choose_base, material_of, untrained
from cascade.training.learning.remember import ImageStages
from cascade.training.training_log import TrainingLog

__all__ = ["Experience", "NewHead", "relearn"]


@dataclass(frozen=True, slots=True)
class Experience:
    """What there is to learn from.

    Attributes:
        stages: of the old bundle.
        heads: image stage -> the head that it has.
        memory: what must not be forgotten.
        study: corrections that are learned from.
        seed: of all partitions.
    """

    stages: ImageStages
    heads: Mapping[str, Head]
    memory: Memory
    study: Embedded
    seed: int


@dataclass(frozen=True, slots=True)
class NewHead:
    """An image stage of the new bundle.

    Attributes:
        name: of the stage.
        labels: one per logit.
        base: the stage of the old bundle whose network it has: itself, or that which a new expert stands on.
        learned: its head.
    """

    name: str
    labels: tuple[str, ...]
    base: ImageStage
    learned: Learned


def relearn(
    experience: Experience, tree: LabelTree, experts: Mapping[str, Sequence[str]], log: TrainingLog
) -> list[NewHead]:
    """Fit all heads; the general model's comes first.

    Args:
        experience: see there.
        tree: labels of the new bundle; those of the old one come first.
        experts: new expert -> its labels.
        log: is told about progress.
    """
    general = experience.stages.general
    found = [_again(experience, general, tree.labels, log)]
    found += [_again(experience, expert, expert.labels, log) for expert in experience.stages.experts]
    for name, own in experts.items():
        found.append(_new_expert(experience, name, own, log))
    return found


def _again(experience: Experience, stage: ImageStage, labels: tuple[str, ...], log: TrainingLog) -> NewHead:
    start = widened(experience.heads[stage.name], len(labels))
    return NewHead(stage.name, labels, stage, _learn(experience, stage.name, stage, labels, start, log))


def _new_expert(experience: Experience, name: str, own: Sequence[str], log: TrainingLog) -> NewHead:
    memory, study = experience.memory, experience.study
    fit = memory.part("train")
    base = choose_base(
        experience.stages.all,
        {stage: embedding[fit] for stage, embedding in memory.of.items()},
        [label for label, one in zip(memory.labels, fit, strict=True) if one],
        study.of,
        [photo.label for photo in study.photos],
        own,
        experience.seed,
    )
    said = ", ".join(f"{stage} {loss:.3f}" for stage, loss in base.losses.items())
    log.line(f"{name}: stands on the network of {base.stage.name} (log loss of a head on each: {said})")
    labels = (*own, NOT_MINE)
    start = untrained(experience.heads[base.stage.name].weights.shape[1], len(own))
    return NewHead(name, labels, base.stage, _learn(experience, name, base.stage, labels, start, log))


def _learn(
    experience: Experience,
    name: str,
    base: ImageStage,
    labels: tuple[str, ...],
    start: Head,
    log: TrainingLog,
) -> Learned:
    memory, study = experience.memory, experience.study
    embedding: Float32s = memory.of[base.name]
    parts = [memory.part(part) for part in ("train", "calibration")]
    kept_labels = [[label for label, one in zip(memory.labels, part, strict=True) if one] for part in parts]
    material = material_of(
        labels,
        (embedding[parts[0]], embedding[parts[1]]),
        (kept_labels[0], kept_labels[1]),
        study.of[base.name],
        [photo.label for photo in study.photos],
        taught=len(base.labels) if name == base.name else 0,
    )
    learned = learn_head(
        start,
        material,
        seed=experience.seed,
        progress=lambda done, total: log.step(name, "pulls compared", done, total),
    )
    what = "keeps its head" if learned.pull is None else f"learned a new head (pull {learned.pull:g})"
    before, after = start.logits(material.new), learned.new_logits
    right = [int((each.argmax(axis=1) == material.new_targets).sum()) for each in (before, after)]
    log.line(
        f"{name}: {what}; of the {len(before)} photos, each by a head that was fitted without it, "
        f"{right[0]} before and {right[1]} after"
    )
    return learned
