"""Batches: mixed by timm, the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")

from cascade.training.data.batches import TrainingData, batches
from cascade.training.data.cached_views import Views
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule

pytestmark = pytest.mark.train

CPU = torch.device("cpu")
PHOTOS, KINDS = 20, 3


def recipe(**plan: object) -> Recipe:
    plan = {"batch_size": 8, "mixup": 0.0, "label_smoothing": 0.0} | plan
    return Recipe("general", "general", {f"l{i}": "l" for i in range(KINDS)}, train=Schedule(**plan))


def examples(*, maps: bool = True, rows: list[int] | None = None) -> TrainingData:
    """Features (channels, 6, 6) or (channels,) that are the number of the photo everywhere."""
    place = np.arange(PHOTOS) if rows is None else np.array(rows)
    shape = (PHOTOS, 2, 6, 6) if maps else (PHOTOS, 2)
    view = np.arange(PHOTOS, dtype=np.float16).reshape(-1, *[1] * (len(shape) - 1)) * np.ones(
        shape, np.float16
    )
    targets = place % KINDS
    return TrainingData(
        views=Views([view, view], view[:0]),
        targets=targets,
        soft=np.eye(KINDS, dtype=np.float32)[targets],
        excluded=np.zeros((len(place), KINDS), dtype=bool),
        sources=("",) * len(place),
        rows=place,
        monitor=targets[:0],
        development=targets[:0],
        weights=np.ones(KINDS, np.float32),
    )


MIXES = [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("maps", [True, False])
def test_targets_of_mixed_photos_sum_to_one(mix: dict[str, float], maps: bool) -> None:
    seen = list(batches(examples(maps=maps), recipe(**mix), 0, CPU))
    assert len(seen) == 2
    mixed = False
    for x, y, _ in seen:
        assert x.shape == (8, 2, 6, 6) if maps else (8, 2)
        torch.testing.assert_close(y.sum(1), torch.ones(8))
        assert (y >= 0).all()
        mixed |= bool(((y > 0).sum(1) > 1).any())
    # Pooled features have no place where something could be cut out.
    assert mixed == (maps or "mixup" in mix)


def test_what_is_mixed_into_a_photo_is_mixed_into_its_target() -> None:
    """The number of a photo is its feature: the mean of a mixture must be that of its target's photos."""
    data = examples()
    # Every photo is a label of its own, so that targets say who went into whom.
    everyone = replace(data, soft=np.eye(PHOTOS, dtype=np.float32))
    for mix in MIXES:
        for x, y, _ in batches(everyone, recipe(**mix), 0, CPU):
            expected = y @ torch.arange(PHOTOS, dtype=torch.float32)
            torch.testing.assert_close(x.mean((1, 2, 3)), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mix", [{}, *MIXES])
def test_the_same_seed_and_epoch_give_the_same_batches(mix: dict[str, float]) -> None:
    def draw(epoch: int, **plan: object) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        np.random.seed(None)
        torch.seed()
        return list(batches(examples(), recipe(**mix, **plan), epoch, CPU))

    for (x, y, _), (x2, y2, _) in zip(draw(3), draw(3), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(draw(3)[0][0], draw(4)[0][0])
    assert not torch.equal(draw(3)[0][0], draw(3, seed=1)[0][0])


def test_photos_that_are_set_aside_are_never_read() -> None:
    rows = [i for i in range(PHOTOS) if i not in (3, 4, 11)]
    data = examples(rows=rows)
    for view in data.views.training:
        view[[3, 4, 11]] = np.nan
    for epoch in range(4):
        for x, y, _ in batches(data, recipe(mixup=0.4, cutmix=1.0), epoch, CPU):
            assert torch.isfinite(x).all()
            assert torch.isfinite(y).all()


def test_few_photos_are_one_short_batch() -> None:
    (only,) = batches(examples(rows=[0, 5, 7]), recipe(mixup=0.4), 0, CPU)
    assert len(only[0]) == 3


def test_a_mixed_photo_leaves_out_only_what_both_its_parts_leave_out() -> None:
    data = examples()
    # Photos of even number leave label 0 out, all photos leave label 1 out.
    excluded = np.zeros((PHOTOS, KINDS), dtype=bool)
    excluded[::2, 0] = excluded[:, 1] = True
    data = replace(data, excluded=excluded, soft=np.eye(PHOTOS, dtype=np.float32))
    for mix in ({}, {"mixup": 0.4}):
        for _, y, left_out in batches(data, recipe(**mix), 0, CPU):
            for row, out in zip(y, left_out, strict=True):
                parts = np.flatnonzero(row.numpy())
                assert out.tolist() == excluded[parts].all(axis=0).tolist()
