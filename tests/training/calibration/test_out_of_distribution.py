"""Scope stage: the graphs compute what the papers say, checked against scikit-learn and scipy, and what is
far from everything known scores higher than what is near."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `train`")
pytest.importorskip("torch", reason="needs the extra `train`")

from scipy.special import logsumexp, softmax
from scope_scores import METHODS
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from cascade.training.calibration import out_of_distribution as s

CENTRES = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32) * 2
HEAD = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)


def photos(n: int, seed: int) -> s.InScope:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 6, n)
    embedding = (CENTRES[targets] + rng.normal(size=(n, 12)) * 0.5).astype(np.float32)
    return s.InScope(embedding @ HEAD, embedding, targets)


KNOWN, UNSEEN = photos(300, 2), photos(80, 3)


def score(method: str, seen: s.InScope = UNSEEN) -> np.ndarray:
    return s.run_scope(s.scope_graph(KNOWN, {}, METHODS[method]), seen.logits, seen.embedding)


def expected(method: str) -> np.ndarray:
    logits, embedding = UNSEEN.logits.astype(np.float64), UNSEEN.embedding.astype(np.float64)
    wide = KNOWN.embedding.astype(np.float64)
    if method == "confidence":
        return 1 - softmax(logits, axis=1).max(1)
    if method == "max_logit":
        return -logits.max(1)
    if method == "energy":
        return -logsumexp(logits, axis=1)
    if method == "neighbours":
        near = NearestNeighbors(n_neighbors=5, metric="cosine").fit(KNOWN.embedding)
        return near.kneighbors(UNSEEN.embedding)[0][:, -1]
    means = np.stack([wide[KNOWN.targets == label].mean(0) for label in range(6)])
    if method == "mahalanobis":
        within = LedoitWolf(assume_centered=True).fit(wide - means[KNOWN.targets])
        return np.min([within.mahalanobis(embedding - mean) for mean in means], axis=0)
    pca = PCA(6).fit(wide)

    def residual(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x - pca.inverse_transform(pca.transform(x)), axis=1)

    scale = KNOWN.logits.max(1).mean() / residual(wide).mean()
    return scale * residual(embedding) - logsumexp(logits, axis=1)


@pytest.mark.parametrize("method", METHODS)
def test_graphs_compute_the_published_scores(method: str) -> None:
    # Constants are kept in half precision, like the weights of the networks.
    np.testing.assert_allclose(score(method), expected(method), rtol=5e-3, atol=5e-3)


def test_what_is_unlike_everything_scores_higher() -> None:
    """In a direction in which nothing known lies; confidence alone need not notice."""
    rng = np.random.default_rng(4)
    strange = (rng.normal(size=(80, 12)) * 3).astype(np.float32)
    strangers = s.InScope(strange @ HEAD, strange, np.zeros(80, dtype=np.int64))
    inside, outside = score(s.METHOD), score(s.METHOD, strangers)
    assert (outside[:, None] > inside[None]).mean() > 0.9


def test_a_score_does_not_depend_on_the_batch() -> None:
    alone = np.concatenate([score(s.METHOD, UNSEEN.rows(np.array([i]))) for i in range(10)])
    np.testing.assert_allclose(score(s.METHOD)[:10], alone, atol=1e-6)


def test_cross_fitted_scores_did_not_see_their_photo() -> None:
    """In sample a photo is its own nearest neighbour, which makes scores too small for a threshold."""
    crossed, unseen = s.cross_fitted_scores(KNOWN, 0), score(s.METHOD, photos(2000, 5))
    assert np.quantile(crossed, 0.95) == pytest.approx(np.quantile(unseen, 0.95), rel=0.15)


def test_the_graph_states_its_origin() -> None:
    model = s.scope_graph(KNOWN, {"cascade.stage": "scope"})
    assert {p.key: p.value for p in model.metadata_props} == {"cascade.stage": "scope"}
    assert [i.name for i in model.graph.input] == ["general_logits", "embedding"]
