"""Photos that are none of the labels: what a network is asked to say of them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")
pytest.importorskip("onnxscript", reason="needs the extra `train`")

from cascade.training.data.outliers import OutlierBatch, Outliers, group_columns, spread_within_groups
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule

pytestmark = pytest.mark.train

GENERAL = Recipe(
    name="general",
    kind="general",
    labels={"bar": "indoor", "office": "indoor", "river": "outdoor", "coast": "outdoor", "menu": "menu"},
    train=Schedule(outliers=0.25, batch_size=8, epochs=4, restart_at=2, seed=3),
)
EXPERT = GENERAL.replace(name="rooms", kind="expert", labels={"bar": "indoor", "office": "indoor"},
    train=GENERAL.train.replace(negatives=1.0, restart_at=0),
)  # fmt: skip


def batch_of(recipe: Recipe, excluded: np.ndarray) -> OutlierBatch:
    groups = torch.from_numpy(group_columns(recipe))
    return OutlierBatch(torch.zeros(len(excluded), 1), torch.from_numpy(excluded), groups)


def test_groups_keep_their_share_and_their_labels_become_equally_probable() -> None:
    logits = torch.tensor([[4.0, 0.0, 1.0, -1.0, 0.5]])
    target = spread_within_groups(logits, batch_of(GENERAL, np.zeros((1, 5), dtype=bool)))
    p = logits.softmax(1)[0]
    indoor, outdoor = float(p[:2].sum()) / 2, float(p[2:4].sum()) / 2
    assert target[0].tolist() == pytest.approx([indoor, indoor, outdoor, outdoor, float(p[4])])


def test_excluded_labels_get_nothing_and_the_rest_of_the_group_all() -> None:
    excluded = np.array([[False, True, False, False, True]])
    logits = torch.tensor([[2.0, -1e4, 1.0, -1.0, -1e4]])
    target = spread_within_groups(logits, batch_of(GENERAL, excluded))[0]
    p = logits.softmax(1)[0]
    assert target.tolist() == pytest.approx(
        [float(p[0]), 0, float(p[2:4].sum()) / 2, float(p[2:4].sum()) / 2, 0]
    )
    assert float(target.sum()) == pytest.approx(1)


def test_an_experts_not_mine_is_a_group_of_its_own() -> None:
    logits = torch.tensor([[3.0, 0.0, 2.0]])
    target = spread_within_groups(logits, batch_of(EXPERT, np.zeros((1, 3), dtype=bool)))[0]
    assert float(target[2]) == pytest.approx(float(logits.softmax(1)[0, 2]))
    assert float(target[0]) == pytest.approx(float(target[1]))


def outliers(recipe: Recipe) -> Outliers:
    views = [np.full((6, 2), view, dtype=np.float16) for view in range(3)]
    excluded = np.zeros((6, recipe.outputs), dtype=bool)
    return Outliers(views, excluded, group_columns(recipe))


def test_outliers_come_in_with_the_restart() -> None:
    device = torch.device("cpu")
    drawn = {epoch: next(outliers(GENERAL).batches(GENERAL, epoch, device)) for epoch in range(4)}
    assert drawn[0] is None
    assert drawn[1] is None
    assert len(drawn[2].x) == len(drawn[3].x) == 2
    assert len(next(outliers(EXPERT).batches(EXPERT, 0, device)).x) == 2


def test_an_epoch_draws_the_same_again_and_another_epoch_draws_anew() -> None:
    device = torch.device("cpu")

    def drawn(epoch: int) -> list[list[list[float]]]:
        batches = outliers(EXPERT).batches(EXPERT, epoch, device)
        return [next(batches).x.tolist() for _ in range(12)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
