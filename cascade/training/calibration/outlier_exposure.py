"""Builds the out-of-scope score from photos in scope and from strangers: photos that are none of the labels.

Two scores are brought to one scale, and the larger one counts, so that each notices what the other does not:

    neighbours    far from the known photos that it is nearest to: things that are no scene at all
    exposure      a logistic regression that tells strangers from photos in scope by the embedding (outlier
                  exposure, Hendrycks et al. 2019, arXiv 1812.04606): places that the labels do not name

Strangers are told from photos of their own sources where there are any, so that the source is no mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.arrays import Bools, Float64s, Floats
from cascade.evaluation.dataset import collection_of
from cascade.export.nodes import Nodes
from cascade.training.calibration.out_of_distribution import (
    AddScore,
    InScope,
    cross_fitted_scores,
    neighbours,
)

__all__ = ["METHOD_WITH_STRANGERS", "STRENGTH", "Strangers", "exposed", "regression"]

#: The score of bundles that were given strangers, as metrics.json names it.
METHOD_WITH_STRANGERS: Final = "neighbours and outlier exposure"

#: Directions of the embedding that the regression sees, and the inverse of its L2 penalty.
_DIRECTIONS: Final = 256
STRENGTH: Final = 0.001
#: Fewer photos of the same sources say too little about what is in scope.
_LEAST: Final = 50
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Strangers:
    """What the exported general model gives for M photos that are none of the labels.

    Attributes:
        logits: (M, L).
        embedding: (M, D).
        sources: of the M photos.
        held_out: (M,), photos that the score is not built from; they say how strange a photo may be where
            few wrong answers are promised. None holds out nothing.
        experts: expert -> (M, K + 1) logits; empty if none was asked.
    """

    logits: Floats
    embedding: Floats
    sources: tuple[str, ...]
    held_out: Bools | None = None
    experts: Mapping[str, Floats] = field(default_factory=dict)

    def part(self, *, held_out: bool) -> Strangers:
        """Return the photos that are held out, or the others."""
        apart = np.zeros(len(self.logits), bool) if self.held_out is None else self.held_out
        rows = np.flatnonzero(apart == held_out)
        sources = tuple(self.sources[row] for row in rows)
        experts = {name: logits[rows] for name, logits in self.experts.items()}
        return Strangers(self.logits[rows], self.embedding[rows], sources, experts=experts)


def exposed(strangers: Strangers, scores: Sequence[AddScore] = (neighbours,)) -> AddScore:
    """Return what adds the score to a graph; see the module.

    Args:
        strangers: photos that are none of the labels.
        scores: which exposure goes together with.
    """

    def add_score(g: Nodes, known: InScope) -> str:
        parts = []
        for add in (*scores, _exposure(strangers)):
            # Of photos that the score was not built from: a distance to a mean is smaller for its own photos.
            middle, high = np.quantile(cross_fitted_scores(known, _SEED, add), [0.5, 0.95])
            shifted = g("Sub", add(g, known), g.constant(np.array([[middle]])))
            parts.append(g("Mul", shifted, g.constant(np.array([[1 / max(high - middle, 1e-6)]]))))
        return g("Max", *parts)

    return add_score


def _exposure(strangers: Strangers) -> AddScore:
    def add_score(g: Nodes, known: InScope) -> str:
        weights, bias = regression(known, strangers)
        return g(
            "Add", g("MatMul", "embedding", g.constant(weights[:, None])), g.constant(np.array([[bias]]))
        )

    return add_score


def regression(known: InScope, strangers: Strangers) -> tuple[Float64s, float]:
    """Return weights (D,) and bias of the log odds that a photo is a stranger."""
    theirs = {collection_of(source) for source in strangers.sources}
    same = np.array([collection_of(source) in theirs for source in known.sources], dtype=bool)
    inside = known.embedding[same] if same.sum() >= _LEAST else known.embedding
    x = np.concatenate([inside, strangers.embedding]).astype(np.float64)
    y = np.repeat([0, 1], [len(inside), len(strangers.embedding)])
    directions = min(_DIRECTIONS, x.shape[1], len(x) - 1)
    scale, project = StandardScaler(), PCA(directions, random_state=_SEED)
    model = LogisticRegression(C=STRENGTH, max_iter=500, class_weight="balanced")
    make_pipeline(scale, project, model).fit(x, y)
    # The three steps are linear, so one vector does what they do.
    weights = project.components_.T @ model.coef_[0] / scale.scale_
    bias = float(model.intercept_[0] - project.mean_ @ project.components_.T @ model.coef_[0])
    return weights, bias - float(scale.mean_ @ weights)
