"""Outlier exposure: strangers are told apart, by what they show and not by where they come from."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra `train`")
pytest.importorskip("sklearn", reason="needs the extra `train`")

from cascade.training.calibration.out_of_distribution import (
    InScope,
    cross_fitted_scores,
    run_scope,
    scope_graph,
)
from cascade.training.calibration.outlier_exposure import Strangers, exposed

WIDTH, LABELS = 24, 3
HEAD = np.eye(WIDTH, LABELS) * 4
#: Direction of the embedding in which strangers differ, and the one in which sources differ.
STRANGE, BLURRED = 10, 11


def embeddings(
    n: int, seed: int, *, strange: float = 0.0, blurred: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, WIDTH) around the means of the labels, and the labels (n,)."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, LABELS, n)
    x = rng.normal(size=(n, WIDTH)) * 0.6 + 2 * np.eye(LABELS, WIDTH)[targets]
    x[:, STRANGE] += strange
    x[:, BLURRED] += blurred
    return x.astype(np.float32), targets


def known_photos(seed: int) -> InScope:
    """Sharp photos of one source and blurred ones of another."""
    sharp, first = embeddings(200, seed)
    blurred, second = embeddings(200, seed + 1, blurred=3.0)
    x = np.concatenate([sharp, blurred])
    sources = ("web:a",) * 200 + ("thumbnails",) * 200
    return InScope((x @ HEAD).astype(np.float32), x, np.concatenate([first, second]), sources)


@pytest.fixture(scope="module")
def strangers() -> Strangers:
    """All of them blurred: they come from the source of the thumbnails."""
    x, _ = embeddings(300, 7, strange=1.5, blurred=3.0)
    return Strangers((x @ HEAD).astype(np.float32), x, ("thumbnails",) * 300)


def share_above(known: InScope, strangers: Strangers | None, x: np.ndarray) -> float:
    """Share of photos that score above 95 % of the known ones."""
    model = scope_graph(known, {}) if strangers is None else scope_graph(known, {}, exposed(strangers))
    mine = (
        cross_fitted_scores(known, 0)
        if strangers is None
        else cross_fitted_scores(known, 0, exposed(strangers))
    )
    return float((run_scope(model, x @ HEAD, x) > np.quantile(mine, 0.95)).mean())


def test_strangers_are_noticed_better_than_without_exposure(strangers: Strangers) -> None:
    known, (unseen, _) = known_photos(1), embeddings(300, 30, strange=1.5, blurred=3.0)
    assert share_above(known, strangers, unseen) > share_above(known, None, unseen) + 0.2


def test_the_source_of_the_strangers_is_no_mark(strangers: Strangers) -> None:
    known = known_photos(1)
    for blurred in (0.0, 3.0):
        fresh, _ = embeddings(400, 50, blurred=blurred)
        assert share_above(known, strangers, fresh) < 0.12


def test_the_graph_gives_what_the_regression_says(strangers: Strangers) -> None:
    """The three linear steps are folded into one vector: compared with scikit-learn's own pipeline."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from cascade.training.calibration import outlier_exposure as module

    known = known_photos(1)
    weights, bias = module.regression(known, strangers)
    inside = known.embedding[200:]
    x = np.concatenate([inside, strangers.embedding]).astype(float)
    y = np.repeat([0, 1], [len(inside), len(strangers.embedding)])
    reference = make_pipeline(
        StandardScaler(),
        PCA(WIDTH, random_state=0),
        LogisticRegression(C=module.STRENGTH, max_iter=500, class_weight="balanced"),
    ).fit(x, y)
    np.testing.assert_allclose(x @ weights + bias, reference.decision_function(x), atol=1e-6)
