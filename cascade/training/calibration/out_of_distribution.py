"""Builds `scope.onnx`, which scores how unlike every known photo a photo is, from photos that are in scope.

general_logits (N, L), embedding (N, D) -> score (N, 1); higher is stranger. The score is the Mahalanobis
distance to the nearest label's mean with one covariance for all labels (Lee et al. 2018, arXiv 1807.03888);
with photos out of scope it is another, see `cascade.training.calibration.outlier_exposure`.
`python benchmarks/out_of_scope.py` compares it with other published scores; none needs another network.
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

from cascade.arrays import Float32s, Float64s, Floats, Ints
from cascade.export.nodes import Nodes
from cascade.onnx_runtime import ort
from cascade.training.calibration.stage_logits import places_of
from cascade.training.export.decision_graphs import decision_graph

__all__ = [
    "FEWEST_KNOWN",
    "KEPT",
    "METHOD",
    "AddScore",
    "InScope",
    "cross_fitted_scores",
    "half_constant",
    "mahalanobis",
    "neighbours",
    "principal_directions",
    "run_scope",
    "scope_graph",
]

#: Share of the photos in scope that stays in scope.
KEPT: Final = 0.95
#: With fewer photos their 95 % quantile is their largest score, and a scope stage would be chance.
FEWEST_KNOWN: Final = 20
#: The method of bundles, as metrics.json names it.
METHOD: Final = "mahalanobis"
#: How many directions of large variance are kept apart.
_SUBSPACE: Final = 128
_FOLDS: Final = 5
#: Which neighbour counts.
_NEIGHBOUR: Final = 5


@dataclass(frozen=True, slots=True)
class InScope:
    """What the exported general model gives for N photos that are in scope.

    Attributes:
        logits: (N, L).
        embedding: (N, D).
        targets: (N,), columns of the right labels.
        sources: of the N photos; empty if nothing is known about them.
    """

    logits: Floats
    embedding: Floats
    targets: Ints
    sources: tuple[str, ...] = ()

    def rows(self, index: npt.NDArray[Any]) -> InScope:
        """Return a subset of the photos."""
        return InScope(
            self.logits[index],
            self.embedding[index],
            self.targets[index],
            tuple(self.sources[place] for place in places_of(index)) if self.sources else (),
        )


#: Adds the nodes of a score to a graph and returns the name of its output, (N, 1).
AddScore = Callable[[Nodes, InScope], str]


def mahalanobis(g: Nodes, known: InScope) -> str:
    """Add the distance to the nearest label's mean; see the module."""
    wide = known.embedding.astype(np.float64)
    present = np.unique(known.targets)
    means = np.stack([wide[known.targets == label].mean(axis=0) for label in present])
    centred = wide - means[np.searchsorted(present, known.targets)]
    # Ledoit and Wolf's covariance, (1 - s) S + s mean(S) I, with the large eigenvalues of S kept one by one
    # and the many small ones as their mean: a tenth of the size, and nearly the same distances.
    shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
    total = float((centred**2).sum() / len(centred))
    _, singular, basis = principal_directions(centred)
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
        (g("MatMul", x, half_constant(g, weights)), m @ weights.astype(np.float16).astype(np.float64), -1.0),
    ):
        square = g("ReduceSumSquare", side, g.constant([1], np.int64), keepdims=1)
        cross = g("MatMul", side, g.constant(-2 * at.T))
        distance = g("Add", g("Add", square, cross), g.constant((at**2).sum(axis=1)[None]))
        parts.append(g("Mul", distance, g.constant(scale)))
    return g("ReduceMin", g("Add", *parts), g.constant([1], np.int64), keepdims=1)


def neighbours(g: Nodes, known: InScope) -> str:
    """Add 1 - cosine to the k-th nearest known embedding (Sun et al. 2022, arXiv 2204.06507)."""
    unit = known.embedding / np.linalg.norm(known.embedding, axis=1, keepdims=True)
    bank = half_constant(g, np.asarray(unit).T)
    direction = g("LpNormalization", "embedding", axis=1, p=2)
    nearest, indices = f"nearest{len(g.nodes)}", f"indices{len(g.nodes)}"
    k = min(_NEIGHBOUR, len(unit))
    g.nodes.append(
        onnx.helper.make_node(
            "TopK", [g("MatMul", direction, bank), g.constant([k], np.int64)], [nearest, indices], axis=1
        )
    )
    return g("Sub", g.constant(1.0), g("Gather", nearest, g.constant([k - 1], np.int64), axis=1))


def scope_graph(
    known: InScope, metadata: Mapping[str, str], add_score: AddScore = mahalanobis
) -> onnx.ModelProto:
    """Build `scope.onnx`.

    Args:
        known: photos in scope.
        metadata: goes into the graph's metadata_props.
        add_score: the score; that of bundles by default.
    """
    g = Nodes()
    g("Identity", add_score(g, known), output="score")
    inputs = {"general_logits": known.logits.shape[1], "embedding": known.embedding.shape[1]}
    return decision_graph(g, "scope", inputs, ("score", 1), metadata)


def run_scope(model: onnx.ModelProto, logits: Floats, embedding: Floats) -> Float32s:
    """Return the scores of photos, (N,)."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"general_logits": logits.astype(np.float32), "embedding": embedding.astype(np.float32)}
    return np.asarray(session.run(["score"], feeds)[0][:, 0])


def cross_fitted_scores(known: InScope, seed: int, add_score: AddScore = mahalanobis) -> Float32s:
    """Return scores (N,) of the known photos, each by a graph that was built without it."""
    scores = np.zeros(len(known.targets), dtype=np.float32)
    for rest, fold in KFold(_FOLDS, shuffle=True, random_state=seed).split(known.logits):
        model = scope_graph(known.rows(rest), {}, add_score)
        scores[fold] = run_scope(model, known.logits[fold], known.embedding[fold])
    return scores


def half_constant(g: Nodes, values: npt.NDArray[Any]) -> str:
    """Store a large constant in half precision, like the weights of the networks."""
    return g("Cast", g.constant(values, np.float16), to=TensorProto.FLOAT)


def principal_directions(centred: Float64s) -> tuple[Float64s, ...]:
    """Return U, singular values and directions (S, D) of the S directions of largest variance."""
    size = min(_SUBSPACE, centred.shape[1] // 2, len(centred) // 2)
    return tuple(randomized_svd(centred, size, n_iter=4, random_state=0))
