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
    relative      mahalanobis less the distance to the common mean  Ren et al. 2021, arXiv 2106.09022
    vim           energy plus the norm of the embedding outside     Wang et al. 2022, arXiv 2203.10807
                  its principal subspace
    blend         neighbours and energy, each divided by its spread in scope
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import KFold

from cascade.training.graphs import GraphBuilder

__all__ = ["KEPT", "METHODS", "SHIPPED", "InScope", "cross_fitted_scores", "run_scope", "scope_graph"]

#: Share of the photos in scope that stays in scope.
KEPT: Final = 0.95
#: The method of bundles.
SHIPPED: Final = "neighbours"
#: Which neighbour counts, and how many principal directions "vim" takes to be the subspace.
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
    means, factor = _class_means(known)
    return _nearest_mean(g, means, factor)


def _relative(g: GraphBuilder, known: InScope) -> str:
    means, factor = _class_means(known)
    wide = known.embedding.astype(np.float64)
    common = _factor(LedoitWolf().fit(wide).precision_)
    return g("Sub", _nearest_mean(g, means, factor), _nearest_mean(g, wide.mean(0, keepdims=True), common))


def _vim(g: GraphBuilder, known: InScope) -> str:
    wide = known.embedding.astype(np.float64)
    origin = wide.mean(0)
    size = min(_SUBSPACE, wide.shape[1] // 2, len(wide) // 2)
    _, _, directions = np.linalg.svd(wide - origin, full_matrices=False)
    subspace = directions[:size].T  # (D, S)
    centred = wide - origin
    outside = np.linalg.norm(centred - centred @ subspace @ subspace.T, axis=1)
    # The paper's scale: the residual weighs as much as the logits do.
    scale = known.logits.max(1).mean() / max(outside.mean(), 1e-12)
    shifted = g("Sub", "embedding", g.constant(origin))
    basis = _half(g, subspace)
    inside = g("MatMul", g("MatMul", shifted, basis), g("Transpose", basis, perm=[1, 0]))
    norm = g("ReduceL2", g("Sub", shifted, inside), g.constant([1], np.int64), keepdims=1)
    return g("Add", g("Mul", norm, g.constant(abs(scale))), _energy(g, known))


def _blend(g: GraphBuilder, known: InScope) -> str:
    parts = []
    for method in (_neighbours, _energy):
        # Spread of scores that saw the photo itself would be too small for the neighbours.
        half = np.arange(len(known.targets)) % 2 == 0
        sub = GraphBuilder()
        sub("Identity", method(sub, known.rows(half)), output="score")
        inputs = {"general_logits": known.logits.shape[1], "embedding": known.embedding.shape[1]}
        model = sub.model("part", inputs, ("score", 1), {})
        spread = run_scope(model, known.logits[~half], known.embedding[~half]).std()
        parts.append(g("Div", method(g, known), g.constant(max(float(spread), 1e-6))))
    return g("Add", *parts)


#: Name -> what adds the score to a graph.
METHODS: Final[dict[str, Callable[[GraphBuilder, InScope], str]]] = {
    "confidence": _confidence,
    "max_logit": _max_logit,
    "energy": _energy,
    "neighbours": _neighbours,
    "mahalanobis": _mahalanobis,
    "relative": _relative,
    "vim": _vim,
    "blend": _blend,
}


def _half(g: GraphBuilder, values: npt.NDArray[Any]) -> str:
    """Store a large constant in half precision, like the weights of the networks."""
    return g("Cast", g.constant(values, np.float16), to=TensorProto.FLOAT)


def _class_means(known: InScope) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the labels' means (C, D) and a factor W (D, D) with W W^T = the shared precision."""
    wide = known.embedding.astype(np.float64)
    present = np.unique(known.targets)
    means = np.stack([wide[known.targets == label].mean(0) for label in present])
    centred = wide - means[np.searchsorted(present, known.targets)]
    return means, _factor(LedoitWolf(assume_centered=True).fit(centred).precision_)


def _factor(precision: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.linalg.cholesky(precision)


def _nearest_mean(g: GraphBuilder, means: npt.NDArray[np.float64], factor: npt.NDArray[np.float64]) -> str:
    """Smallest squared distance |x W - m W|^2 to a mean, without an (N, C, D) array."""
    x = g("MatMul", "embedding", g.constant(factor))
    m = means @ factor
    square = g("ReduceSumSquare", x, g.constant([1], np.int64), keepdims=1)
    cross = g("MatMul", x, g.constant(-2 * m.T))
    distance = g("Add", g("Add", square, cross), g.constant((m**2).sum(1)[None]))
    return g("ReduceMin", distance, g.constant([1], np.int64), keepdims=1)
