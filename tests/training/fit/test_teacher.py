"""A teacher judges no photo whose label it saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("sklearn", reason="needs the extra `train`")

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cascade.evaluation.dataset import Photo
from cascade.training.fit import teacher as module
from cascade.training.fit.teacher import opinions, soften, teacher_probabilities
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Schedule, Teacher

pytestmark = pytest.mark.train

TEACHER = Teacher(share=0.5, backbones=("x",), weights=("none",), sides=(32,), folds=4, strength=0.1)
GENERAL = Recipe("general", "general", {"a": "p", "b": "p", "c": "q"}, teacher=TEACHER)
EXPERT = Recipe("rooms", "expert", {"b": "p", "a": "p"}, teacher=TEACHER, train=Schedule(negatives=0.5))


def clusters(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Features (3 * count, 4) in three clusters, and their labels."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, 4) * 6
    features = np.concatenate([centre + rng.normal(size=(count, 4)) for centre in centres])
    return features.astype(np.float32), np.repeat(["a", "b", "c"], count)


def test_a_wrong_label_does_not_reach_its_own_photo() -> None:
    features, labels = clusters()
    # So many more features than photos that a regression can learn every label by heart.
    noise = np.random.default_rng(1).normal(size=(len(labels), 200))
    features = np.concatenate([features, noise.astype(np.float32)], axis=1)
    flipped = labels.copy()
    flipped[7] = "b"
    teacher = TEACHER.replace(strength=100.0)
    saw_it = make_pipeline(StandardScaler(), LogisticRegression(C=teacher.strength)).fit(features, flipped)
    assert saw_it.predict(features[7:8]) == ["b"]
    said = opinions(features, flipped, teacher, seed=0)
    assert said[7].argmax() == 0, "its neighbours say a"
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("keep", [[0, 20], [0, 1, 20], [0, 20, 40]])
def test_a_handful_of_photos_teaches_no_more_than_how_common_labels_are(keep: list[int]) -> None:
    features, labels = clusters()
    said = opinions(features[keep], labels[keep], TEACHER, seed=0)
    assert said.shape == (len(keep), len(set(labels[keep])))
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)


def test_a_label_of_a_single_photo_is_nobodys_opinion() -> None:
    features, labels = clusters()
    keep = np.r_[0:20, 20:40, 40:41]
    said = opinions(features[keep], labels[keep], TEACHER, seed=0)
    assert said.shape == (41, 3)
    assert said[40, 2] == 0
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)


def test_opinions_are_mixed_into_smoothed_labels() -> None:
    said = np.array([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]], dtype=np.float32)
    soft = soften(GENERAL.replace(train=Schedule(label_smoothing=0.3)), np.array([0, 2]), "abc", said)
    np.testing.assert_allclose(soft, [[0.75, 0.15, 0.1], [0.05, 0.25, 0.7]], rtol=1e-6)


def test_not_mine_gets_the_mass_of_all_other_labels() -> None:
    said = np.array([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]], dtype=np.float32)
    pupil = EXPERT.replace(train=EXPERT.train.replace(label_smoothing=0.0))
    # Its logits are b, a, not mine.
    soft = soften(pupil.replace(teacher=TEACHER.replace(share=1.0)), np.array([1, 2]), "abc", said)
    np.testing.assert_allclose(soft, [[0.2, 0.7, 0.1], [0.4, 0.0, 0.6]], rtol=1e-6)
    soft = soften(pupil, np.array([1, 2]), "abc", said)
    np.testing.assert_allclose(soft, [[0.1, 0.85, 0.05], [0.2, 0.0, 0.8]], rtol=1e-6)


def test_without_a_teacher_labels_are_smoothed() -> None:
    soft = soften(GENERAL.replace(train=Schedule(label_smoothing=0.3)), np.array([1]), (), None)
    np.testing.assert_allclose(soft, [[0.1, 0.8, 0.1]], rtol=1e-6)


def test_opinions_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters()
    photos = [Photo(Path(f"{i}.jpg"), str(label), "train", "", f"{i:064x}") for i, label in enumerate(labels)]
    asked = []

    def features_of(*arguments: Any, **options: Any) -> np.ndarray:
        asked.append(1)
        return features

    monkeypatch.setattr(module, "teacher_features", features_of)
    device, quiet = torch.device("cpu"), lambda what, done, total: None

    def ask(recipe: Recipe, photos: list[Photo] = photos, seed: int = 3) -> np.ndarray:
        names, said = teacher_probabilities(
            recipe, photos, tmp_path, seed=seed, device=device, progress=quiet
        )
        assert names == ("a", "b", "c")
        return said

    first = ask(GENERAL)
    np.testing.assert_array_equal(ask(EXPERT), first)
    np.testing.assert_array_equal(ask(GENERAL.replace(teacher=TEACHER.replace(share=0.9))), first)
    assert len(asked) == 1, "recipes with the same teacher share what it said"
    ask(GENERAL.replace(teacher=TEACHER.replace(strength=1.0)))
    ask(GENERAL, [replace(photos[0], label="b"), *photos[1:]])
    ask(GENERAL.replace(input=GENERAL.input.replace(reducing_gap=3.0)))
    ask(GENERAL, seed=4)
    assert len(asked) == 5, "another teacher, input or seed, or other labels, are another opinion"
    np.testing.assert_array_equal(ask(GENERAL.replace(train=Schedule(seed=9))), first)
    assert not list(tmp_path.glob("*.partial*"))
