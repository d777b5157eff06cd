"""The order of photos, the keys of labels, and what the photos that were looked at say about all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cascade.review.estimate import estimate_accuracy
from cascade.review.label_keys import RESERVED, label_keys
from cascade.review.ordering import ORDERS, by_doubt, look_alikes, order


def test_look_alikes_are_neighbours_by_name_with_the_same_guess():
    paths = ["a/2", "a/1", "b/3", "a/4", "a/5", "a/6"]
    first = np.array([0, 0, 0, 1, 1, 1])
    probability = np.array([0.50, 0.60, 0.51, 0.51, 0.52, 0.90])
    groups = look_alikes(paths, first, probability).tolist()
    assert groups[0] == groups[1]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 4
    assert look_alikes([], first[:0], probability[:0]).tolist() == []


def test_doubtful_photos_come_first_and_look_alikes_apart():
    doubt = np.array([0.9] * 5 + np.linspace(0.89, 0.1, 200).tolist())
    groups = np.array([0] * 5 + list(range(1, 201)))
    ordered = by_doubt(doubt, groups).tolist()
    places = [ordered.index(position) for position in range(5)]
    assert places[0] == 0
    assert min(np.diff(places)) > 10
    with_error = by_doubt(np.append(doubt, -1.0), np.append(groups, 999)).tolist()
    assert with_error[-1] == 205
    others = [position for position in ordered if position >= 5]
    assert others == sorted(others)


def test_every_order_has_every_photo_once():
    random = np.random.default_rng(1)
    doubt, groups = random.random(500), random.integers(0, 60, 500)
    paths = [f"{n % 7}/{n}" for n in range(500)]
    for name in ORDERS:
        assert sorted(order(name, doubt, groups, paths).tolist()) == list(range(500))
    assert order("confidence", doubt, groups, paths)[0] == doubt.argmin()
    assert [paths[n] for n in order("path", doubt, groups, paths)] == sorted(paths)
    with pytest.raises(KeyError):
        order("nonsense", doubt, groups, paths)


def test_keys_of_the_shipped_labels():
    manifest = json.loads((Path(__file__).parents[2] / "models/default/bundle.json").read_text())
    labels = [one["label"] for one in manifest["labels"]]
    keys = label_keys(labels)
    assert set(keys) == set(labels)
    assert len(set(keys.values())) == len(labels)
    assert not {key.lower() for key in keys.values()} & RESERVED
    assert keys["kitchen"] == "k"
    assert label_keys(labels) == keys


def test_more_labels_than_keys():
    keys = label_keys([f"label {n}" for n in range(100)])
    assert len(keys) == len(set(keys.values())) == 48


def test_nobody_has_looked():
    nothing = np.zeros(5, dtype=bool)
    assert estimate_accuracy(np.ones(5), nothing, nothing) is None
    assert estimate_accuracy(np.ones(0), nothing[:0], nothing[:0]) is None


def test_everything_looked_at_leaves_no_doubt():
    right = np.arange(1000) % 10 > 1
    found = estimate_accuracy(np.linspace(0, 1, 1000), right, np.ones(1000, dtype=bool))
    assert found.value == pytest.approx(0.8)
    assert found.high - found.low == pytest.approx(0)


@pytest.mark.parametrize("overconfident", [0.0, 0.1])
@pytest.mark.parametrize("doubtful_first", [False, True])
def test_the_interval_holds_the_truth_also_when_doubtful_photos_are_looked_at_first(
    doubtful_first, overconfident
):
    random = np.random.default_rng(6)
    held, plain = 0, []
    for _ in range(200):
        confidence = random.beta(4, 1.5, 3000)
        right = random.random(3000) < confidence - overconfident
        weight = (1 - confidence) ** 2 if doubtful_first else np.ones(3000)
        chosen = random.choice(3000, 400, replace=False, p=weight / weight.sum())
        looked_at = np.zeros(3000, dtype=bool)
        looked_at[chosen] = True
        found = estimate_accuracy(confidence, right, looked_at)
        held += found.low <= right.mean() <= found.high
        plain.append(right[looked_at].mean() - right.mean())
    assert held >= 0.9 * 200
    if doubtful_first:
        assert np.mean(plain) < -0.1  # what the plain share would have said
