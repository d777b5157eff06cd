"""Published scores of how strange a photo is, as ONNX graphs; `out_of_scope.py` compares them.

confidence    1 - largest probability                           Hendrycks, Gimpel 2017, arXiv 1610.02136
max_logit     - largest logit                                   Hendrycks et al. 2022, arXiv 1911.11132
energy        - log sum exp of the logits                       Liu et al. 2020, arXiv 2010.03759
neighbours    1 - cosine to the k-th nearest embedding          Sun et al. 2022, arXiv 2204.06507 (ships)
mahalanobis   to the nearest label's mean, shared covariance    Lee et al. 2018, arXiv 1807.03888 (ships)
vim           energy plus the norm of the embedding outside     Wang et al. 2022, arXiv 2203.10807
              its principal subspace
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cascade.export.nodes import Nodes
from cascade.training.calibration.out_of_distribution import (
    AddScore,
    InScope,
    half_constant,
    mahalanobis,
    neighbours,
    principal_directions,
)


def _confidence(g: Nodes, known: InScope) -> str:
    p = g("Softmax", "general_logits", axis=1)
    return g("Sub", g.constant(1.0), g("ReduceMax", p, g.constant([1], np.int64), keepdims=1))


def _max_logit(g: Nodes, known: InScope) -> str:
    return g("Neg", g("ReduceMax", "general_logits", g.constant([1], np.int64), keepdims=1))


def _energy(g: Nodes, known: InScope) -> str:
    return g("Neg", g("ReduceLogSumExp", "general_logits", g.constant([1], np.int64), keepdims=1))


def _vim(g: Nodes, known: InScope) -> str:
    wide = known.embedding.astype(np.float64)
    origin = wide.mean(0)
    subspace = principal_directions(wide - origin)[2].T  # (D, S)
    centred = wide - origin
    outside = np.linalg.norm(centred - centred @ subspace @ subspace.T, axis=1)
    # The paper's scale: the residual weighs as much as the logits do.
    scale = known.logits.max(1).mean() / max(outside.mean(), 1e-12)
    shifted = g("Sub", "embedding", g.constant(origin))
    basis = half_constant(g, subspace)
    inside = g("MatMul", g("MatMul", shifted, basis), g("Transpose", basis, perm=[1, 0]))
    norm = g("ReduceL2", g("Sub", shifted, inside), g.constant([1], np.int64), keepdims=1)
    return g("Add", g("Mul", norm, g.constant(abs(scale))), _energy(g, known))


#: Name -> what adds the score to a graph.
METHODS: Final[dict[str, AddScore]] = {
    "confidence": _confidence,
    "max_logit": _max_logit,
    "energy": _energy,
    "neighbours": neighbours,
    "mahalanobis": mahalanobis,
    "vim": _vim,
}
