"""Says which label every photo would get from a model that has not learned from that photo.

Logistic regression on embeddings. Photos that are copies of each other are judged by models that learned
from none of them, and nothing is learned from the split `test`, so that what is corrected elsewhere does not
depend on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cascade.arrays import Bools, Float32s, Float64s, Ints

__all__ = ["FEWEST_OF_LABEL", "Judged", "cross_fit"]

#: Of a label with fewer groups of copies, too little is known to judge it.
FEWEST_OF_LABEL: Final = 5
_FOLDS: Final = 5
#: Directions of the embeddings that are kept, so that many photos are judged in seconds.
_DIRECTIONS: Final = 256
#: Inverse strength of the regularisation, for embeddings of variance 1.
_INVERSE_STRENGTH: Final = 0.01
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of every photo.

    Attributes:
        labels: K labels that could be judged, in alphabetical order.
        rows: (n,), places of the photos that have one of them.
        given: (n,), columns of their labels.
        probabilities: (n, K), each row by a model that had no part in the photo or its copies.
    """

    labels: tuple[str, ...]
    rows: Ints
    given: Ints
    probabilities: Float64s


def cross_fit(embeddings: Float32s, labels: Sequence[str], groups: Ints, measured: Bools) -> Judged | None:
    """Judge the labels of photos.

    Args:
        embeddings: (N, D).
        labels: N.
        groups: (N,), photos with the same number are copies of each other.
        measured: (N,), photos that nothing is learned from, unless all of them are such photos.

    Returns:
        None if there are not two labels with enough photos to learn from.
    """
    names = np.asarray(labels, dtype=str)
    # A copy of a measured photo would tell the models about it.
    aside = np.zeros_like(measured) if measured.all() else np.isin(groups, groups[measured])
    known = tuple(
        label
        for label in np.unique(names).tolist()
        if len(np.unique(groups[(names == label) & ~aside])) >= FEWEST_OF_LABEL
    )
    if len(known) < 2:
        return None
    rows = np.flatnonzero(np.isin(names, known))
    given = np.searchsorted(np.array(known), names[rows])
    taught = ~aside[rows]
    seen = _standardised(embeddings[rows], taught)
    probabilities = np.zeros((len(rows), len(known)))
    learned = np.flatnonzero(taught)
    folds = _folds(given[learned], groups[rows][learned])
    for rest, judged in folds:
        model = _fit(seen[learned[rest]], given[learned[rest]])
        probabilities[np.ix_(learned[judged], model.classes_)] = model.predict_proba(seen[learned[judged]])
        others = np.flatnonzero(~taught)
        if len(others):  # the mean of the models
            share = model.predict_proba(seen[others]) / len(folds)
            probabilities[np.ix_(others, model.classes_)] += share
    probabilities /= probabilities.sum(1, keepdims=True)
    return Judged(known, rows, given, probabilities)


def _standardised(embeddings: Float32s, taught: Bools) -> Float32s:
    from sklearn.decomposition import PCA

    directions = min(_DIRECTIONS, embeddings.shape[1], int(taught.sum()))
    solver = "covariance_eigh" if embeddings.shape[1] < taught.sum() else "full"
    reduction = PCA(directions, whiten=False, svd_solver=solver, random_state=_SEED)
    reduction.fit(embeddings[taught])
    found = reduction.transform(embeddings)
    # One scale for all directions: those that differ most between photos should count most.
    return np.asarray(found / max(float(found[taught].std()), 1e-9), dtype=np.float32)


def _folds(given: Ints, groups: Ints) -> list[tuple[Ints, Ints]]:
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        splitter = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=_SEED)
        return list(splitter.split(given, given, groups))


def _fit(seen: Float32s, given: Ints) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_INVERSE_STRENGTH, max_iter=200)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # good enough to judge labels by
        return model.fit(seen, given)
