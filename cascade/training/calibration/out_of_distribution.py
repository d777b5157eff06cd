"""What is out of scope. In: embeddings and logits of the general model on photos that are in scope. Out:
`scope.onnx`, general_logits (N, L), embedding (N, D) -> score (N, 1); higher is stranger.

Several published scores are built, all from photos in scope alone and all as graphs of plain ONNX operators,
so that the comparison (`python benchmarks/out_of_scope.py`) runs the very thing that would be shipped.
`SHIPPED` is what won there. None needs another network.

    confidence    1 - largest probability                           Hendrycks, Gimpel 2017, arXiv 1610.02136
    max_logit     - largest logit                                   Hendrycks et al. 2022, arXiv 1911.11132
    energy        - log sum exp of the logits                       Liu et al. 2020, arXiv 2010.03759
    neighbours    1 - cosine to the k-th nearest embedding          Sun et al. 2022, arXiv 2204.06507
    mahalanobis   to the nearest label's mean, shared covariance    Lee et al. 2018, arXiv 1807.03888
    vim           energy plus the norm of the embedding outside     Wang et al. 2022, arXiv 2203.10807
                  its principal subspace
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.model_selection import KFold
from sklearn.utils.extmath import randomized_svd

from cascade.onnx_runtime import ort
from cascade.training.export.decision_graphs import GraphBuilder

__all__ = [
    "FEWEST_KNOWN",
    "KEPT",
    "METHODS",
    "SHIPPED",
    "InScope",
    "cross_fitted_scores",
    "run_scope",
    "scope_graph",
]

#: Share of the photos in scope that stays in scope.
KEPT: Final = 0.95
#: With fewer photos their 95 % quantile is their largest score, and a scope stage would be chance.
FEWEST_KNOWN: Final = 20
#: The method of bundles.
SHIPPED: Final = "mahalanobis"
#: Which neighbour counts, and how many directions of large variance are kept apart.
_NEIGHBOUR: Final = 5
_SUBSPACE: Final = 128
_FOLDS: Final = 5

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InScope:
    """What the exported general model says of N photos that are in scope.

    Attributes:
        logits: (N, L).
        embedding: (N, D).
        targets: (N,), columns of the right labels.
    """

    logits: FloatArray
    embedding: FloatArray
    targets: npt.NDArray[np.int64]

    def rows(self, index: npt.NDArray[Any]) -> InScope:
        """Return a subset of the photos."""
        return InScope(self.logits[index], self.embedding[index], self.targets[index])


def scope_graph(known: InScope, metadata: Mapping[str, str], method: str = SHIPPED) -> onnx.ModelProto:
    """Build `scope.onnx`.

    Args:
        known: photos in scope.
        metadata: goes into the graph's metadata_props.
        method: a key of `METHODS`.
    """
    g = GraphBuilder()
    g("Identity", METHODS[method](g, known), output="score")
    inputs = {"general_logits": known.logits.shape[1], "embedding": known.embedding.shape[1]}
    return g.model("scope", inputs, ("score", 1), metadata)


def run_scope(model: onnx.ModelProto, logits: FloatArray, embedding: FloatArray) -> FloatArray:
    """Return the scores of photos, (N,)."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"general_logits": logits.astype(np.float32), "embedding": embedding.astype(np.float32)}
    return np.asarray(session.run(["score"], feeds)[0][:, 0])


def cross_fitted_scores(known: InScope, seed: int, method: str = SHIPPED) -> FloatArray:
    """Return scores (N,) of the known photos, each by a graph that was built without it."""
    scores = np.zeros(len(known.targets), dtype=np.float32)
    for rest, fold in KFold(_FOLDS, shuffle=True, random_state=seed).split(known.logits):
        model = scope_graph(known.rows(rest), {}, method)
        scores[fold] = run_scope(model, known.logits[fold], known.embedding[fold])
    return scores


# --- the scores: each adds its nodes to a graph and returns the name of its output, (N, 1) ----------------


def _confidence(g: GraphBuilder, known: InScope) -> str:
    p = g("Softmax", "general_logits", axis=1)
    return g("Sub", g.constant(1.0), g("ReduceMax", p, g.constant([1], np.int64), keepdims=1))


def _max_logit(g: GraphBuilder, known: InScope) -> str:
    return g("Neg", g("ReduceMax", "general_logits", g.constant([1], np.int64), keepdims=1))


def _energy(g: GraphBuilder, known: InScope) -> str:
    return g("Neg", g("ReduceLogSumExp", "general_logits", g.constant([1], np.int64), keepdims=1))


def _neighbours(g: GraphBuilder, known: InScope) -> str:
    unit = known.embedding / np.linalg.norm(known.embedding, axis=1, keepdims=True)
    bank = _half(g, np.asarray(unit).T)
    direction = g("LpNormalization", "embedding", axis=1, p=2)
    nearest, indices = f"nearest{len(g.nodes)}", f"indices{len(g.nodes)}"
    k = min(_NEIGHBOUR, len(unit))
    g.nodes.append(
        onnx.helper.make_node(
            "TopK", [g("MatMul", direction, bank), g.constant([k], np.int64)], [nearest, indices], axis=1
        )
    )
    return g("Sub", g.constant(1.0), g("Gather", nearest, g.constant([k - 1], np.int64), axis=1))


def _mahalanobis(g: GraphBuilder, known: InScope) -> str:
    wide = known.embedding.astype(np.float64)
    present = np.unique(known.targets)
    means = np.stack([wide[known.targets == label].mean(axis=0) for label in present])
    centred = wide - means[np.searchsorted(present, known.targets)]
    # Ledoit and Wolf's covariance, (1 - s) S + s mean(S) I, with the large eigenvalues of S kept one by one
    # and the many small ones as their mean: a tenth of the size, and nearly the same distances.
    shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
    total = float((centred**2).sum() / len(centred))
    _, singular, basis = _principal(centred)
    top = singular**2 / len(centred)
    mean = total / wide.shape[1]
    large = (1 - shrinkage) * top + shrinkage * mean
    rest = (1 - shrinkage) * (total - top.sum()) / (wide.shape[1] - len(top)) + shrinkage * mean
    origin = wide.mean(axis=0)
    # |x - m|^2 / rest - |B (x - m)|^2, where B brings the large eigenvalues in; for all means m at once.
    x = g("Sub", "embedding", g.constant(origin))
    m = means - origin
    weights = basis.T * np.sqrt(np.maximum(1 / rest - 1 / large, 0))
    parts = []
    for side, at, scale in (
        (x, m, 1 / rest),
        (g("MatMul", x, _half(g, weights)), m @ weights.astype(np.float16).astype(np.float64), -1.0),
    ):
        square = g("ReduceSumSquare", side, g.constant([1], np.int64), keepdims=1)
        cross = g("MatMul", side, g.constant(-2 * at.T))
        distance = g("Add", g("Add", square, cross), g.constant((at**2).sum(axis=1)[None]))
        parts.append(g("Mul", distance, g.constant(scale)))
    return g("ReduceMin", g("Add", *parts), g.constant([1], np.int64), keepdims=1)


def _vim(g: GraphBuilder, known: InScope) -> str:
    wide = known.embedding.astype(np.float64)
    origin = wide.mean(0)
    subspace = _principal(wide - origin)[2].T  # (D, S)
    centred = wide - origin
    outside = np.linalg.norm(centred - centred @ subspace @ subspace.T, axis=1)
    # The paper's scale: the residual weighs as much as the logits do.
    scale = known.logits.max(1).mean() / max(outside.mean(), 1e-12)
    shifted = g("Sub", "embedding", g.constant(origin))
    basis = _half(g, subspace)
    inside = g("MatMul", g("MatMul", shifted, basis), g("Transpose", basis, perm=[1, 0]))
    norm = g("ReduceL2", g("Sub", shifted, inside), g.constant([1], np.int64), keepdims=1)
    return g("Add", g("Mul", norm, g.constant(abs(scale))), _energy(g, known))


#: Name -> what adds the score to a graph.
METHODS: Final[dict[str, Callable[[GraphBuilder, InScope], str]]] = {
    "confidence": _confidence,
    "max_logit": _max_logit,
    "energy": _energy,
    "neighbours": _neighbours,
    "mahalanobis": _mahalanobis,
    "vim": _vim,
}


def _half(g: GraphBuilder, values: npt.NDArray[Any]) -> str:
    """Store a large constant in half precision, like the weights of the networks."""
    return g("Cast", g.constant(values, np.float16), to=TensorProto.FLOAT)


def _principal(centred: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return U, singular values and directions (S, D) of the S directions of largest variance."""
    size = min(_SUBSPACE, centred.shape[1] // 2, len(centred) // 2)
    return tuple(randomized_svd(centred, size, n_iter=4, random_state=0))
