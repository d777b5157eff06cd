"""Which files are the same, and which of them stays."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra audit: pip install -e '.[audit]'")

from made_photos import scene
from PIL import Image

from cascade.audit.duplicates import Pair, copies, exact_groups, groups_of, pair_findings
from cascade.audit.examine import Facts
from cascade.audit.listing import Listed
from cascade.audit.neighbours import nearest


def listed(name: str, label: str = "bar", split: str = "train") -> Listed:
    return Listed(name, label, split, "")


def test_the_photo_that_is_measured_stays() -> None:
    photos = [listed("a"), listed("b", split="test"), listed("c", split="calibration"), listed("d")]
    facts = [Facts("x"), Facts("x"), Facts("x"), Facts("y")]
    assert exact_groups(photos, facts) == [[1, 2, 0], [3]]


def test_unreadable_files_are_no_duplicates() -> None:
    facts = [Facts("x", code="empty"), Facts("x", code="empty")]
    assert exact_groups([listed("a"), listed("b")], facts) == [[0], [1]]


def test_the_more_probable_label_stays() -> None:
    photos = [listed("a", "bar"), listed("b", "lobby"), listed("c", "lobby", "test")]
    belief = np.array([0.1, 0.8, 0.0])
    (one,) = pair_findings("exact_duplicate", photos, [Pair(0, 1, 1.0)], belief)
    assert (one.path, one.other, one.detail) == ("a", "b", "the same picture as bar and as lobby")
    (two,) = pair_findings("exact_duplicate", photos, [Pair(2, 1, 1.0)], belief)  # not where one is of test
    assert (two.path, two.other, two.other_split) == ("b", "c", "test")


def test_groups_join_through_others() -> None:
    assert groups_of(6, [(4, 5), (1, 2), (2, 4)]).tolist() == [0, 1, 1, 3, 1, 1]


def test_the_nearest_are_exact() -> None:
    vectors = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places, cosines = nearest(vectors, 4)
    close = vectors @ vectors.T
    np.fill_diagonal(close, -2)
    np.testing.assert_array_equal(places, np.argsort(-close, axis=1)[:, :4])
    np.testing.assert_allclose(cosines, -np.sort(-close, axis=1)[:, :4], atol=1e-6)
    assert nearest(vectors[:2], 4)[0].tolist() == [[1], [0]]


def test_copies_among_photos_with_close_embeddings() -> None:
    pictures = [scene(seed) for seed in range(12)]
    pictures += [pictures[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT), pictures[5].crop((0, 0, 130, 100))]
    small = [np.asarray(p.convert("L").resize((64, round(64 * p.height / p.width)))) for p in pictures]
    photos = [listed(f"{number:02}") for number in range(len(pictures))]
    facts = [Facts(str(number), width=p.width, height=p.height) for number, p in enumerate(pictures)]
    embeddings = np.ones((len(photos), 4), dtype=np.float32) / 2  # so that all are compared with all
    near = nearest(embeddings, len(photos))
    pairs = copies(photos, facts, *near, lambda place: small[place], workers=2)
    assert {(pair.first, pair.second) for pair in pairs} == {(3, 12), (5, 13)}  # the larger one stays


def test_one_photo_alone() -> None:
    near = nearest(np.ones((1, 3), dtype=np.float32), 5)
    assert (
        copies([listed("a")], [Facts("x")], *near, lambda place: np.zeros((4, 4), np.uint8), workers=1) == []
    )
