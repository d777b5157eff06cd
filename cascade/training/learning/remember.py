"""Makes the memory of a bundle from the photos that it was trained and calibrated on.

    python -m cascade.training.learning.remember BUNDLE DATA... [--out-of-scope DIR]

writes it into a bundle that has none, from photos of the splits `train` and `calibration`, the same number of
each label; `cascade train` does so for every new bundle.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx

from cascade.bundle.manifest import Bundle
from cascade.bundle.signing import SIGNATURE
from cascade.bundle.stage import Expert, General, ImageStage
from cascade.evaluation.dataset import Dataset, Photo, scan
from cascade.training.calibration.sources import source_weights
from cascade.training.export.bundle_documents import seal
from cascade.training.learning.embeddings import Embedded, embed
from cascade.training.learning.heads import Head, read_head
from cascade.training.learning.memory import MEMORY_FILE, PARTS, Memory, write_memory
from cascade.training.project import strangers_in
from cascade.training.training_log import TrainingLog

__all__ = ["ImageStages", "heads_of", "memory_of", "remember"]

#: Photos that are remembered of each part, as far as labels have as many: more would make the file larger.
_PHOTOS: Final = {"train": 1600, "calibration": 1600}
_FEWEST_PER_LABEL: Final = 4
_STRANGERS: Final = 600


@dataclass(frozen=True, slots=True)
class ImageStages:
    """The image stages of a bundle, or of one in the making.

    Attributes:
        folder: where their graphs are.
        general: the general model.
        experts: in the bundle's order.
    """

    folder: Path
    general: General
    experts: tuple[Expert, ...]

    @property
    def all(self) -> tuple[ImageStage, ...]:
        """Return the general model and the experts."""
        return (self.general, *self.experts)


def heads_of(stages: ImageStages) -> dict[str, Head]:
    """Return image stage -> its head; raises `BundleError` where the logits come from no linear layer."""
    return {
        stage.name: read_head(onnx.load(stages.folder / stage.file), str(stages.folder / stage.file))
        for stage in stages.all
    }


def memory_of(
    stages: ImageStages, photos: Sequence[Photo], strangers: Sequence[Photo], log: TrainingLog, seed: int = 0
) -> Memory:
    """Run the stages on photos and return what is remembered of them.

    Args:
        stages: of the bundle.
        photos: of the splits `train` and `calibration`; others are left alone.
        strangers: photos that are none of the labels.
        log: is told about progress.
        seed: of the choice of photos.

    Raises:
        BundleError: when the logits of a stage do not come from one linear layer.
    """
    chosen = [photo for part in PARTS for photo in _alike(photos, part, _PHOTOS[part], seed)]
    order = np.random.default_rng(seed).permutation(len(strangers))[:_STRANGERS]
    found = _embed(stages, chosen, log, "embeddings to remember")
    foreign = _embed(
        ImageStages(stages.folder, stages.general, ()),
        [strangers[place] for place in sorted(order)],
        log,
        "embeddings of photos out of scope",
    )
    return Memory(
        tuple(photo.label for photo in found.photos),
        tuple(photo.split for photo in found.photos),
        tuple(photo.source for photo in found.photos),
        found.of,
        foreign.of[stages.general.name],
        tuple(photo.source for photo in foreign.photos),
    )


def remember(bundle: Bundle, dataset: Dataset, strangers: Sequence[Photo], log: TrainingLog) -> None:
    """Write the memory of a finished bundle into its folder; a signature is removed.

    Args:
        bundle: any.
        dataset: the photos that it was made from.
        strangers: photos that are none of the labels.
        log: is told about progress.
    """
    stages = ImageStages(bundle.folder, bundle.general, bundle.experts)
    memory = memory_of(stages, dataset.photos, strangers, log)
    write_memory(bundle.folder / MEMORY_FILE, memory, heads_of(stages))
    (bundle.folder / SIGNATURE).unlink(missing_ok=True)
    seal(bundle.folder)


def _embed(stages: ImageStages, photos: Sequence[Photo], log: TrainingLog, what: str) -> Embedded:
    return embed(
        stages.folder,
        stages.general,
        stages.experts,
        photos,
        lambda done, total: log.step("bundle", what, done, total),
    )


def _alike(photos: Sequence[Photo], part: str, count: int, seed: int) -> list[Photo]:
    """Return about so many photos of a part, of each label the same number where there are as many."""
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Photo]] = {}
    for photo in photos:
        if photo.split == part:
            by_label.setdefault(photo.label, []).append(photo)
    for label, same in by_label.items():
        # Not by chance alone: a source of few photos would hardly be remembered.
        chance = source_weights([photo.source for photo in same])
        order = rng.choice(len(same), len(same), replace=False, p=chance / chance.sum())
        by_label[label] = [same[place] for place in order]
    each = _FEWEST_PER_LABEL
    while each < max(map(len, by_label.values()), default=0) and (
        sum(min(len(same), each + 1) for same in by_label.values()) <= count
    ):
        each += 1
    return sorted(photo for same in by_label.values() for photo in same[:each])


def main(arguments: Sequence[str]) -> int:
    """Write the memory of a bundle; see the module."""
    parser = argparse.ArgumentParser(description="Write the memory of a bundle from its training photos.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--out-of-scope", type=Path)
    given = parser.parse_args(arguments)
    bundle = Bundle.load(given.bundle)
    strangers: tuple[Photo, ...] = ()
    if given.out_of_scope is not None:
        with TemporaryDirectory() as notes:
            strangers = strangers_in(given.out_of_scope, Path(notes)).photos
    with TrainingLog() as log:
        remember(bundle, scan(given.data, bundle.tree.labels), strangers, log)
        size = (bundle.folder / MEMORY_FILE).stat().st_size / 1e6
        log.line(f"wrote {bundle.folder / MEMORY_FILE}, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
