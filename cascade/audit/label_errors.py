"""Finds labels that are probably wrong, and pairs of labels that the model cannot tell apart.

Confident learning (Northcutt, Jiang, Chuang: Confident Learning, JAIR 2021) as in cleanlab, on probabilities
of models that had no part in the photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from cascade.arrays import Float64s, Ints
from cascade.audit.cross_fit import Judged
from cascade.audit.finding import Finding
from cascade.audit.listing import Listed

__all__ = ["confusable_labels", "label_findings", "wrong_labels"]

#: Share of wrong answers, of the photos of two labels, from which the labels are called confusable.
_CONFUSED: Final = 0.2
#: Photos that each of the two labels must have for that.
_FEWEST_OF_PAIR: Final = 10


def wrong_labels(judged: Judged) -> Ints:
    """Return the places among the judged photos whose label is probably wrong, the surest first."""
    from cleanlab.filter import find_label_issues

    probabilities, given = judged.probabilities, judged.given
    wrong = find_label_issues(given, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    places = np.flatnonzero(wrong & (probabilities.argmax(1) != given))
    return np.asarray(places[np.argsort(-_margin(judged)[places], kind="stable")], dtype=np.int64)


def _margin(judged: Judged) -> Float64s:
    own = judged.probabilities[np.arange(len(judged.given)), judged.given]
    return np.asarray(judged.probabilities.max(1) - own)


def label_findings(photos: Sequence[Listed], judged: Judged, wrong: Ints) -> Iterator[Finding]:
    """Yield a finding for every photo whose label is probably wrong.

    The score is the margin by which another label is more probable, as 0..1: 0.5 is none.

    Args:
        photos: N.
        judged: of those photos.
        wrong: see `wrong_labels`.
    """
    margin = _margin(judged)
    for place in wrong:
        photo, probabilities = photos[judged.rows[place]], judged.probabilities[place]
        suggested = judged.labels[int(probabilities.argmax())]
        sure, doubt = float(probabilities.max()), float(probabilities[judged.given[place]])
        yield Finding(
            "mislabelled",
            photo.shown,
            photo.label,
            (1 + float(margin[place])) / 2,
            f"{suggested} with {100 * sure:.0f} %, {photo.label} with {100 * doubt:.0f} %",
            split=photo.split,
            suggested=suggested,
        )


def confusable_labels(judged: Judged, unsure: Ints) -> Iterator[Finding]:
    """Yield the pairs of labels that cannot be told apart, the worst first.

    The score is twice the error of telling just these two apart, which is the mean of both labels' errors; 1
    is chance.

    Args:
        judged: see there.
        unsure: places among the judged photos that are left out, because their labels are probably wrong.
    """
    kept = np.setdiff1d(np.arange(len(judged.given)), unsure)
    given, probabilities = judged.given[kept], judged.probabilities[kept]
    found = []
    for first, second in combinations(range(len(judged.labels)), 2):
        errors = _pair_error(probabilities, given, first, second)
        if errors is not None and errors >= _CONFUSED:
            found.append((errors, first, second))
    for error, first, second in sorted(found, reverse=True):
        yield Finding(
            "confusable",
            "",
            judged.labels[first],
            min(2 * error, 1.0),
            f"{100 * error:.0f} % of their photos are taken for the other of the two (chance: 50 %)",
            other=judged.labels[second],
        )


def _pair_error(probabilities: Float64s, given: Ints, first: int, second: int) -> float | None:
    ours = [given == label for label in (first, second)]
    if min(int(mine.sum()) for mine in ours) < _FEWEST_OF_PAIR:
        return None
    to_second = probabilities[:, second] > probabilities[:, first]
    return float((to_second[ours[0]].mean() + (~to_second[ours[1]]).mean()) / 2)
