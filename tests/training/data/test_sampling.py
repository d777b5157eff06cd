"""Which photos are learned from, and how often."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cascade.evaluation.dataset import Photo
from cascade.training.data.sampling import development_part, label_weights, learned_from, photos_of_epoch
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule

LABELS = {"bar": "indoor", "attic": "indoor", "coast": "outdoor"}
#: 80 bars, 15 attics, 5 coasts.
TARGETS = np.repeat([0, 1, 2], [80, 15, 5])
PHOTOS = [
    Photo(Path(f"{i}.jpg"), list(LABELS)[target], "train", "", hashlib.sha256(bytes([i])).hexdigest())
    for i, target in enumerate(TARGETS)
]


def recipe(**plan: object) -> Recipe:
    return Recipe(name="general", kind="general", labels=LABELS, train=Schedule(**plan))


def expert(**plan: object) -> Recipe:
    labels = {"bar": "indoor", "attic": "indoor"}
    return Recipe(name="rooms", kind="expert", labels=labels, train=Schedule(**plan))


def test_an_epoch_takes_every_photo_once() -> None:
    for epoch in range(2):
        assert sorted(photos_of_epoch(TARGETS, recipe(), epoch)) == list(range(100))
    assert photos_of_epoch(TARGETS, recipe(), 0).tolist() != photos_of_epoch(TARGETS, recipe(), 1).tolist()


def test_balanced_sampling_shows_rare_labels_as_often() -> None:
    balanced = recipe(balance="sampling")
    drawn = np.concatenate([TARGETS[photos_of_epoch(TARGETS, balanced, e)] for e in range(300)])
    # 30,000 draws: three standard deviations of a share of one third are below 0.01.
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.01)


def test_balanced_sampling_leaves_an_experts_negatives_alone() -> None:
    balanced = expert(balance="sampling", negatives=0.04)
    drawn = TARGETS[photos_of_epoch(TARGETS, balanced, 0)]
    assert len(drawn) == 99
    assert (drawn == 2).sum() == 4


def test_an_experts_negatives_are_drawn_anew_in_every_epoch() -> None:
    plain = expert(negatives=0.02)
    drawn = {tuple(sorted(i for i in photos_of_epoch(TARGETS, plain, e) if i >= 95)) for e in range(8)}
    assert all(len(each) == 2 for each in drawn)
    assert len(drawn) > 1


def test_weights_are_one_on_average_and_inverse_to_how_often_a_label_occurs() -> None:
    weights = label_weights(TARGETS, recipe(balance="weights"))
    assert weights[TARGETS].mean() == pytest.approx(1)
    np.testing.assert_allclose(weights * np.bincount(TARGETS), 100 / 3, rtol=1e-6)
    assert label_weights(TARGETS, recipe()).tolist() == [1, 1, 1]
    # "Not mine" is no label.
    assert label_weights(TARGETS, expert(balance="weights", negatives=0.5))[2] == 1


def test_weights_equal_those_of_scikit_learn() -> None:
    weights = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight(
        "balanced", classes=np.arange(3), y=TARGETS
    )
    np.testing.assert_allclose(label_weights(TARGETS, recipe(balance="weights")), weights, rtol=1e-6)


def test_the_development_part_holds_every_label_and_nothing_that_is_learned_from() -> None:
    stopping = recipe(early_stopping=3, development=0.2)
    learned, watched = learned_from(PHOTOS, TARGETS, stopping)
    assert sorted([*learned, *watched]) == list(range(100))
    assert np.bincount(TARGETS[watched]).tolist() == [16, 3, 1]


def test_recipes_of_a_bundle_hold_the_same_photos_out_so_that_they_share_caches() -> None:
    general, rooms = recipe(seed=1), expert(seed=2, negatives=1.0)
    watched = development_part(PHOTOS, general.train).tolist()
    assert watched == development_part(PHOTOS, rooms.train).tolist()
    # Not the first ones by name: a burst of photos would then be held out together.
    assert watched[:8] != list(range(8))
    # The same photos in another order are held out again.
    turned = development_part(PHOTOS[::-1], general.train)
    assert sorted(99 - turned) == watched


def test_photos_that_only_compare_weights_are_few_and_not_too_few() -> None:
    assert len(development_part(PHOTOS, Schedule())) == 10  # 8 + 2 + 0, enough to compare
    assert len(development_part(PHOTOS[:60], Schedule())) == 0
    assert len(development_part(PHOTOS * 100, Schedule())) == pytest.approx(500, abs=2)
    assert len(development_part(PHOTOS * 100, Schedule(early_stopping=1))) == 1000
    learned, _ = learned_from(PHOTOS[:60], TARGETS[:60], recipe())
    assert learned.tolist() == list(range(60))


def test_a_share_of_the_photos_keeps_every_label_and_larger_shares_contain_smaller_ones() -> None:
    parts = [set(learned_from(PHOTOS, TARGETS, recipe(share=s))[0].tolist()) for s in (0.01, 0.1, 0.5, 1.0)]
    assert [len(part) for part in parts] == [3, 9, 44, 90]  # a part of the 90 that are not held out
    assert all(small <= large for small, large in pairwise(parts))
    assert set(TARGETS[list(parts[0])]) == {0, 1, 2}


def test_sources_are_balanced_and_emphasised_as_the_recipe_says() -> None:
    targets = np.zeros(1000, dtype=np.int64)
    sources = ["thumbnails"] * 900 + ["web"] * 100
    plan = {"balance": "sampling", "label_balance": 0.0}
    for more, share in (
        ({}, 0.1),
        ({"source_balance": 1.0}, 0.5),
        ({"source_balance": 0.5}, 0.25),
        ({"source_balance": 0.5, "emphasis": {"web": 3.0}}, 0.5),
    ):
        drawn = np.concatenate(
            [photos_of_epoch(targets, recipe(**plan, **more), epoch, sources) for epoch in range(30)]
        )
        assert (drawn >= 900).mean() == pytest.approx(share, abs=0.01)
