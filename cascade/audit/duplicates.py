"""Finds files that are the same, and photos that are changed copies of others.

Exact copies have the same SHA-256. Changed copies are looked for among the photos with the closest
embeddings, and must also match pixel by pixel, see `cascade.audit.matching`. The thresholds were chosen on
planted copies: `benchmarks/audit_copies.py` prints what each of them finds, and how often it is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from cascade.arrays import Float32s, Float64s, Ints, Pixels
from cascade.audit.examine import Facts
from cascade.audit.finding import Finding
from cascade.audit.listing import Listed
from cascade.audit.matching import COARSE, Scene, coarse_scores, copy_score
from cascade.inference.parallel import map_batches

__all__ = ["COPY_THRESHOLD", "Pair", "copies", "exact_groups", "groups_of", "pair_findings"]

#: Of every photo, so many others with the closest embeddings are looked at.
_NEIGHBOURS: Final = 8
#: Embeddings further apart than this are not looked at.
_LEAST_COSINE: Final = 0.45
#: Agreement at which a pair is looked at closely; planted copies have 0.6 and more.
COARSE_THRESHOLD: Final = 0.55
#: Score from which a pair is a copy.
COPY_THRESHOLD: Final = 0.82
#: Which photo of a pair stays: what is measured with is not touched.
_STAYS_FIRST: Final = ("test", "calibration", "train", "")
#: Scenes that are kept in memory, 17 kB each.
_SCENES: Final = 2048
#: Photos that a worker takes at once.
_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos that are one picture.

    Attributes:
        first: place of the one that stays.
        second: place of the other.
        score: see `cascade.audit.matching.copy_score`; 1 for the same bytes.
    """

    first: int
    second: int
    score: float


def exact_groups(photos: Sequence[Listed], facts: Sequence[Facts]) -> list[list[int]]:
    """Return the places of photos with the same bytes, the one that should stay first.

    Files that cannot be read have nothing in common; groups of one are there too.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for place, fact in enumerate(facts):
        same[fact.sha256 if fact.readable else f"unread {place}"].append(place)
    return [sorted(group, key=lambda place: _rank(photos[place], facts[place])) for group in same.values()]


def _rank(photo: Listed, facts: Facts) -> tuple[int, int, str]:
    split = _STAYS_FIRST.index(photo.split) if photo.split in _STAYS_FIRST else len(_STAYS_FIRST)
    return split, -facts.width * facts.height, photo.path


def copies(
    photos: Sequence[Listed],
    facts: Sequence[Facts],
    places: Ints,
    cosines: Float32s,
    small: Callable[[int], Pixels],
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pair]:
    """Return the pairs of photos that are changed copies of each other, the surest first.

    Args:
        photos: N, all of them readable and no two of the same bytes.
        facts: of each.
        places: (N, K), the nearest other photos of each, see `cascade.audit.neighbours.nearest`.
        cosines: (N, K), how close they are.
        small: place -> small grey copy; called in several threads.
        workers: threads.
        progress: called with photos done and photos to do.
    """
    close = _candidates(places[:, :_NEIGHBOURS], cosines[:, :_NEIGHBOURS])

    @lru_cache(_SCENES)  # neighbours mostly have the same label and stand close together
    def scene(place: int) -> Scene:
        return Scene.of(small(place), COARSE)

    def look(batch: Sequence[int]) -> list[Pair]:
        found = []
        for place in batch:
            picture, others = small(place), close[place]
            if not others:
                continue
            scores = coarse_scores(picture, [scene(other) for other in others])
            for other, coarse in zip(others, scores, strict=True):
                score = copy_score(picture, small(other)) if coarse >= COARSE_THRESHOLD else 0.0
                if score >= COPY_THRESHOLD:
                    found.append(_pair(photos, facts, place, other, score))
        return found

    found: dict[tuple[int, int], Pair] = {}
    done = 0
    for batch in map_batches(look, range(len(photos)), workers=workers, batch_size=_BATCH):
        found |= {(pair.first, pair.second): pair for pair in batch}
        done = min(done + _BATCH, len(photos))
        progress(done, len(photos))
    return sorted(found.values(), key=lambda pair: (-pair.score, pair.first, pair.second))


def _candidates(places: Ints, cosines: Float32s) -> list[list[int]]:
    """Return for every photo those that it may be a part of; one of the two is a neighbour of the other."""
    close: list[set[int]] = [set() for _ in places]
    for place, column in zip(*np.nonzero(cosines >= _LEAST_COSINE), strict=True):
        neighbour = int(places[place, column])
        close[int(place)].add(neighbour)
        close[neighbour].add(int(place))
    return [sorted(others) for others in close]


def _pair(photos: Sequence[Listed], facts: Sequence[Facts], place: int, other: int, score: float) -> Pair:
    first, second = sorted((place, other), key=lambda one: _rank(photos[one], facts[one]))
    return Pair(first, second, score)


def pair_findings(
    kind: str, photos: Sequence[Listed], pairs: Sequence[Pair], belief: Float64s
) -> Iterator[Finding]:
    """Yield a finding for every pair: its path is the photo that can go, its other the one that stays.

    Where the two are of one split and have different labels, the one with the more probable label stays.

    Args:
        kind: "exact_duplicate" or "near_duplicate".
        photos: N.
        pairs: of their places.
        belief: N probabilities of the labels that the photos have; nan where nothing is known.
    """
    for pair in pairs:
        first, second = pair.first, pair.second
        if photos[first].split == photos[second].split and belief[second] > belief[first]:
            first, second = second, first
        stays, goes = photos[first], photos[second]
        where = []
        if stays.split != goes.split:
            where.append(f"in {goes.split} and in {stays.split}")
        if stays.label != goes.label:
            where.append(f"as {goes.label} and as {stays.label}")
        yield Finding(
            kind,
            goes.shown,
            goes.label,
            min(pair.score, 1.0),
            "the same picture " + " and ".join(where or ["twice"]),
            split=goes.split,
            other=stays.shown,
            other_label=stays.label,
            other_split=stays.split,
        )


def groups_of(count: int, pairs: Sequence[tuple[int, int]]) -> Ints:
    """Return a number for each of ``count`` photos; photos that pairs join, also through others, share it."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, second in pairs:
        parent[max(root(first), root(second))] = min(root(first), root(second))
    return np.array([root(place) for place in range(count)], dtype=np.int64)
