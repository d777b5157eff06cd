"""Puts photos into the order in which people should look at them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ORDERS", "by_doubt", "look_alikes", "order"]

#: Order -> what it is for.
ORDERS: Final = {
    "doubt": "most doubtful first, look-alikes apart",
    "confidence": "most confident first",
    "random": "a fair sample: the same random order every time",
    "path": "by name",
}

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

#: Photos that are neighbours by name, have the same best label and differ in its probability by no more than
#: this are taken for look-alikes: the burst of a camera, or copies.
_ALIKE: Final = 0.2
#: Places by which each further look-alike is put back, and for how many of them: a folder that is all alike
#: keeps its doubtful photos in front.
_APART: Final = 24
_MOST_BACK: Final = 10


def look_alikes(paths: Sequence[str], first: Ints, probability: Floats) -> Ints:
    """Return a group number for each of N photos; look-alikes share one.

    Args:
        paths: N paths.
        first: (N,) number of the most probable label.
        probability: (N,) of that label.
    """
    by_name = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)
    folders = [str(PurePath(paths[position]).parent) for position in by_name.tolist()]
    new = np.array([before != after for before, after in pairwise(["", *folders])], dtype=bool)
    new[1:] |= np.diff(first[by_name]) != 0
    new[1:] |= np.abs(np.diff(probability[by_name])) > _ALIKE
    groups = np.empty(len(paths), dtype=np.int64)
    groups[by_name] = np.cumsum(new)
    return groups


def by_doubt(doubt: npt.NDArray[np.floating], groups: Ints) -> Ints:
    """Return the N positions, most doubtful first; each further look-alike of a group comes later.

    Args:
        doubt: (N,); higher is more doubtful, below 0 means that there is no answer.
        groups: (N,), see `look_alikes`.
    """
    ranked = np.argsort(-doubt, kind="stable")
    seen: dict[int, int] = {}
    place = np.empty(len(ranked))
    for rank, position in enumerate(ranked.tolist()):
        group = int(groups[position])
        earlier = seen.get(group, 0)
        seen[group] = earlier + 1
        place[position] = rank + _APART * min(earlier, _MOST_BACK)
    place[doubt < 0] += 2 * len(ranked) + _APART * _MOST_BACK  # nothing to say about these: last
    return np.argsort(place, kind="stable").astype(np.int64)


def order(name: str, doubt: npt.NDArray[np.floating], groups: Ints, paths: Sequence[str]) -> Ints:
    """Return all N positions in one of `ORDERS`.

    Raises:
        KeyError: for another name.
    """
    if name == "doubt":
        return by_doubt(doubt, groups)
    if name == "confidence":
        return np.argsort(doubt, kind="stable").astype(np.int64)
    if name == "random":
        return np.random.default_rng(0).permutation(len(doubt)).astype(np.int64)
    if name == "path":
        return np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)
    raise KeyError(name)
