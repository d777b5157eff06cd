"""Suggests which photos of a run to label next, for `cascade suggest`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cascade.arrays import Float32s
from cascade.classifier import Cascade
from cascade.errors import DataError
from cascade.inference.parallel import map_batches
from cascade.review.active_choice import choose_photos
from cascade.review.run_index import find_root
from cascade.runs.rows import Row, path_of

__all__ = ["Suggestion", "suggest"]

#: Of a large run, so many of the most doubtful photos per photo that is wanted are looked at again.
_CANDIDATES: Final = 20
_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What was chosen.

    Attributes:
        rows: of the run, the photo that teaches most first.
        looked_at: photos that were looked at again.
        open: photos of the run that nobody has said anything about and that have an answer.
        missing: photos among those looked at that could not be read.
    """

    rows: tuple[Row, ...]
    looked_at: int
    open: int
    missing: int


def suggest(
    rows: Iterable[Row],
    run: Path,
    cascade: Cascade,
    count: int,
    *,
    reviewed: Collection[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Suggestion:
    """Choose the photos of a run that teach most when they are labelled.

    The general model looks at the most doubtful ones again, because a run keeps no embeddings.

    Args:
        rows: of the run.
        run: its file; relative paths start here or beside it.
        cascade: the bundle.
        count: how many photos are wanted.
        reviewed: paths that somebody has said something about.
        seed: of the choice.
        progress: called with (done, total).

    Raises:
        DataError: when no photo is left, or none of them is where the run says.
    """
    left = [row for row in rows if row.get("label") and row["path"] not in reviewed]
    if not left:
        raise DataError(f"{run}: holds no photo that has an answer and was not reviewed yet")
    doubtful = sorted(left, key=_certainty)[: count * _CANDIDATES]
    root = find_root([path_of(row) for row in doubtful], run) or Path()
    read, probabilities, embedding = _look(cascade, [root / path_of(row) for row in doubtful], progress)
    if not read:
        raise DataError(
            f"{run}: none of its photos is where it says; start the command where `cascade classify` was "
            "started"
        )
    chosen = choose_photos(probabilities, embedding, count, seed)
    return Suggestion(
        tuple(doubtful[read[place]] for place in chosen), len(doubtful), len(left), len(doubtful) - len(read)
    )


def _certainty(row: Row) -> float:
    """Return how far the two likeliest labels are apart; with no list of labels, how sure the answer is."""
    top = row.get("top") or []
    if len(top) > 1:
        return float(top[0]["probability"] - top[1]["probability"])
    return float(row.get("confidence") or 0.0)


def _look(
    cascade: Cascade, paths: Sequence[Path], progress: Callable[[int, int], None]
) -> tuple[list[int], Float32s, Float32s]:
    """Return which photos could be read, and the general model's probabilities and embeddings of them."""

    def run(batch: Sequence[Path]) -> tuple[int, tuple[int, ...], Float32s | None, Float32s | None]:
        prepared = cascade.prepare_photos(batch)
        if not prepared.positions:
            return len(batch), (), None, None
        out = cascade.run_stages(prepared.inputs, ask="never")
        return len(batch), prepared.positions, out.general_probabilities, out.embedding

    read: list[int] = []
    probabilities, embeddings = [], []
    done = 0
    for size, positions, said, embedding in map_batches(
        run, paths, workers=cascade.workers, batch_size=_BATCH
    ):
        read += [done + place for place in positions]
        if said is not None and embedding is not None:
            probabilities.append(said)
            embeddings.append(embedding)
        done += size
        progress(done, len(paths))
    if not read:
        return [], np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
    return read, np.concatenate(probabilities), np.concatenate(embeddings)
