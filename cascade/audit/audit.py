"""Audits labelled photos: looks at every file once, compares them, and returns everything that was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cascade.arrays import Float64s
from cascade.audit.cross_fit import Judged, cross_fit
from cascade.audit.duplicates import Pair, copies, exact_groups, groups_of, pair_findings
from cascade.audit.examine import Examined, Examiner, Facts
from cascade.audit.finding import KINDS, Finding
from cascade.audit.label_errors import confusable_labels, label_findings, wrong_labels
from cascade.audit.listing import Listed
from cascade.audit.neighbours import LOOKED_AT, nearest
from cascade.audit.odd_files import odd_files
from cascade.audit.outliers import outliers, strangeness
from cascade.audit.shortcuts import Association, associations, attributes, few_photos, shortcuts
from cascade.audit.store import Store
from cascade.inference.parallel import map_batches

__all__ = ["Audit", "audit"]

_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        photos: every labelled file.
        facts: of each.
        findings: ordered by kind, as in `cascade.audit.finding.KINDS`; the surest of each kind first.
        associations: what source, size and sharpness say about labels.
        accuracy: share of the photos that a model, fitted on the others' embeddings, gives their label; None
            if there are too few photos.
    """

    photos: tuple[Listed, ...]
    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]
    associations: tuple[Association, ...]
    accuracy: float | None

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


def audit(
    photos: Sequence[Listed],
    examiner: Examiner,
    store: Store,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Audit labelled photos.

    What was found in a file is kept in the store; memory grows by one embedding a photo, not by photos.

    Args:
        photos: see `cascade.audit.listing.list_photos`.
        examiner: looks at the files that the store does not know.
        store: made for the same model.
        workers: threads.
        progress: called with photos done and photos to do, first when they are read, then when compared.

    Raises:
        OutputError: when the store cannot be written.
    """
    _examine([photo.path for photo in photos], examiner, store, workers, progress)
    facts = [store.facts(photo.path) for photo in photos]
    same = exact_groups(photos, facts)
    rows = [group[0] for group in same if facts[group[0]].readable]
    seen = _compare(photos, facts, rows, store, workers, progress) if len(rows) > 1 else _Compared()
    belief = _belief(photos, same, rows, seen.judged)
    equal = [Pair(group[0], other, 1.0) for group in same for other in group[1:]]
    changed = [Pair(rows[pair.first], rows[pair.second], pair.score) for pair in seen.pairs]
    found = [
        *odd_files(photos, facts),
        *few_photos(photos),
        *pair_findings("exact_duplicate", photos, equal, belief),
        *pair_findings("near_duplicate", photos, changed, belief),
        *seen.findings,
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    found.sort(key=lambda finding: (order[finding.kind], -finding.score, finding.path))
    return Audit(tuple(photos), tuple(facts), tuple(found), seen.associations, _accuracy(seen.judged))


def _examine(
    paths: Sequence[str],
    examiner: Examiner,
    store: Store,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    unknown = list(store.unknown(paths))
    done = len(paths) - len(unknown)

    def look(batch: Sequence[str]) -> list[tuple[str, Examined]]:
        return [(path, examiner.examine(path)) for path in batch]

    for batch in map_batches(look, unknown, workers=workers, batch_size=_BATCH):
        store.add(batch)
        done += len(batch)
        progress(done, len(paths))


@dataclass(frozen=True, slots=True)
class _Compared:
    """What comparing readable photos of different content found; see `Audit`."""

    pairs: Sequence[Pair] = ()
    judged: Judged | None = None
    findings: Sequence[Finding] = ()
    associations: tuple[Association, ...] = ()


def _compare(
    photos: Sequence[Listed],
    facts: Sequence[Facts],
    rows: Sequence[int],
    store: Store,
    workers: int,
    progress: Callable[[int, int], None],
) -> _Compared:
    kept, theirs = [photos[row] for row in rows], [facts[row] for row in rows]
    embeddings = store.embeddings([photo.path for photo in kept])
    places, cosines = nearest(embeddings, LOOKED_AT)
    pairs = copies(
        kept,
        theirs,
        places,
        cosines,
        lambda place: store.small(kept[place].path),
        workers=workers,
        progress=progress,
    )
    groups = groups_of(len(kept), [(pair.first, pair.second) for pair in pairs])
    names = [photo.label for photo in kept]
    measured = np.array([photo.split == "test" for photo in kept])
    judged = cross_fit(embeddings, names, groups, measured)
    found: list[Finding] = []
    wrong = np.zeros(len(kept), dtype=np.bool_)
    if judged is not None:
        suspects = wrong_labels(judged)
        wrong[judged.rows[suspects]] = True
        found += [*label_findings(kept, judged, suspects), *confusable_labels(judged, suspects)]
    found += outliers(kept, strangeness(embeddings, names, groups), wrong)
    known = attributes(kept, theirs)
    found += shortcuts(kept, known)
    return _Compared(pairs, judged, found, tuple(associations(kept, known)))


def _belief(
    photos: Sequence[Listed], same: Sequence[Sequence[int]], rows: Sequence[int], judged: Judged | None
) -> Float64s:
    """Return how probable the label of every photo is, (N,); nan where nothing is known."""
    belief = np.full(len(photos), np.nan)
    if judged is None:
        return belief
    judgement = {rows[row]: place for place, row in enumerate(judged.rows)}
    columns = {label: column for column, label in enumerate(judged.labels)}
    for group in same:
        place = judgement.get(group[0])
        for photo in group if place is not None else ():
            if photos[photo].label in columns:
                belief[photo] = judged.probabilities[place, columns[photos[photo].label]]
    return belief


def _accuracy(judged: Judged | None) -> float | None:
    return None if judged is None else float((judged.probabilities.argmax(1) == judged.given).mean())
