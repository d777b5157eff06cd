"""Promised beside measured: counts are right, a broken promise is called broken, shifts do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade import Cascade
from cascade.evaluation.corruptions import CORRUPTIONS
from cascade.evaluation.dataset import scan
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.guarantee_check import (
    AS_THEY_ARE,
    ErrorCheck,
    check_errors,
    check_guarantees,
    check_label_sets,
)
from cascade.evaluation.guarantee_table import render_guarantees
from cascade.evaluation.labelled_answers import label_answers
from cascade.guarantees.conformal_sets import LabelSets
from cascade.labels import LabelTree
from cascade.policy import OperatingPoint, decide

TREE = LabelTree(tuple("abcd"), {"a": "x", "b": "x", "c": "y", "d": "z"})
PROBABILITIES = np.array(
    [
        [0.9, 0.1, 0.0, 0.0],  # label, right
        [0.9, 0.1, 0.0, 0.0],  # label, wrong
        [0.5, 0.4, 0.1, 0.0],  # parent, right
        [0.5, 0.4, 0.1, 0.0],  # parent, wrong
        [0.3, 0.3, 0.2, 0.2],  # unknown
        [1.0, 0.0, 0.0, 0.0],  # out of scope
    ]
)
TARGETS = np.array([0, 1, 1, 2, 0, 0])
SCORES = np.array([0.0] * 5 + [2.0])


def test_counts_by_hand() -> None:
    row = check_errors(
        "by hand",
        label_answers(PROBABILITIES, TARGETS, SCORES, TREE),
        OperatingPoint(0.8, 0.85, 0, 1.0, 0.1),
    )
    assert (row.photos, row.answered, row.wrong, row.error) == (6, 4, 2, 0.5)
    shares = (row.labels, row.parents, row.unknown, row.out_of_scope)
    assert shares == pytest.approx((2 / 6, 2 / 6, 2 / 6, 1 / 6))
    assert row.interval.low < 0.5 < row.interval.high


def test_counts_agree_with_the_policy() -> None:
    rng = np.random.default_rng(0)
    probabilities, targets = rng.dirichlet(np.full(4, 0.3), 500), rng.integers(0, 4, 500)
    scores = rng.random(500)
    point = OperatingPoint(0.7, 0.8, 0.0, 0.9, 0.5)
    row = check_errors("", label_answers(probabilities, targets, scores, TREE), point)
    answers = [decide(p, TREE, point, float(s)) for p, s in zip(probabilities, scores, strict=True)]
    truth = [TREE.labels[t] for t in targets]
    wrong = [a.label not in (t, TREE.parent_of[t], "unknown") for a, t in zip(answers, truth, strict=True)]
    assert row.wrong == sum(wrong)
    assert row.answered == sum(a.label != "unknown" for a in answers)
    assert round(row.labels * 500) == sum(a.reason == "leaf" for a in answers)
    assert round(row.out_of_scope * 500) == sum(a.reason == "out_of_scope" for a in answers)


def many(wrong: int, answered: int, promised: float | None) -> ErrorCheck:
    probabilities = np.tile([1.0, 0.0, 0.0, 0.0], (answered, 1))
    targets = np.where(np.arange(answered) < wrong, 2, 0)
    return check_errors(
        "", label_answers(probabilities, targets, None, TREE), OperatingPoint(0.5, 0.5, 0, None, promised)
    )


def test_only_what_chance_does_not_explain_is_broken() -> None:
    assert not many(5, 100, 0.1).broken
    assert not many(12, 100, 0.1).broken
    assert many(20, 100, 0.1).broken
    assert not many(20, 100, None).broken


def test_nobody_answered_is_no_error() -> None:
    row = check_errors(
        "", label_answers(PROBABILITIES, TARGETS, SCORES + 2, TREE), OperatingPoint(0.5, 0.5, 0, 1.0, 0.1)
    )
    assert np.isnan(row.error)
    assert not row.broken
    assert row.unknown == row.out_of_scope == 1.0


def test_label_sets_by_hand() -> None:
    sets = LabelSets(penalty=0.0, free_ranks=0, photos=10, thresholds=((0.9, 0.6),))
    found = check_label_sets(sets, PROBABILITIES[:5], TARGETS[:5], 0.9)
    # Sets: {a}, {a}, {a, b}, {a, b}, {a, b, c}; they lack b of the second and c of the fourth.
    assert (found.coverage, found.mean_size, found.single) == (pytest.approx(0.6), 1.8, 0.4)
    assert (found.worst_label, found.worst_label_coverage, found.worst_label_photos) == (2, 0.0, 1)


# --- shifts ----------------------------------------------------------------------------------------------


def test_shifts_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    changed = {name: change(photo) for name, change in CORRUPTIONS.items()}
    assert all(image.mode == "RGB" for image in changed.values())
    pixels = {name: np.asarray(image, dtype=float) for name, image in changed.items()}
    before = np.asarray(photo, dtype=float)
    assert pixels["blurred"].std() < before.std() / 2
    assert np.abs(pixels["JPEG quality 20"] - before).mean() > 0
    assert changed["half resolution"].size == (80, 60)
    assert np.ptp(pixels["grey"], axis=2).max() == 0
    assert pixels["darker"].mean() == pytest.approx(before.mean() / 2, rel=0.02)


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (150, 150), (400, 60)])
def test_a_crooked_photo_has_no_empty_corners(size: tuple[int, int]) -> None:
    white = CORRUPTIONS["rotated by 10 degrees"](Image.new("RGB", size, "white"))
    assert np.asarray(white).min() > 250
    assert white.width / white.height == pytest.approx(size[0] / size[1], rel=0.06)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_smallest_photo_survives(name: str) -> None:
    assert min(CORRUPTIONS[name](Image.new("RGB", (1, 1))).size) >= 1


# --- the whole -------------------------------------------------------------------------------------------


def test_every_shift_is_measured(tiny_bundle: Path, labelled_folder: Path) -> None:
    cascade = Cascade(tiny_bundle)
    evaluation = evaluate(cascade, scan(labelled_folder).photos)
    done: list[tuple[int, int]] = []
    check = check_guarantees(
        cascade,
        evaluation.photos,
        evaluation.probabilities["cascade"],
        evaluation.truth,
        evaluation.scope_score,
        corrupted=20,
        progress=lambda number, total: done.append((number, total)),
    )
    assert [row.name for row in check.rows] == [AS_THEY_ARE, *CORRUPTIONS]
    assert [row.photos for row in check.rows] == [40] + [20] * len(CORRUPTIONS)
    assert done[-1] == (20 * len(CORRUPTIONS),) * 2
    # The bundle judges by mean colour: blur leaves answers as they are, grey destroys them.
    by_name = {row.name: row for row in check.rows}
    assert by_name["grey"].unknown + by_name["grey"].error > by_name["blurred"].unknown + 0.3
    assert json.loads(json.dumps(check.to_dict(), allow_nan=False))["promise"][0]["photos"] == 40
    # Colour survives every other camera: accuracy and labels stay. Grey changes most labels.
    assert by_name["128 px, JPEG 60"].changed < 0.1
    assert by_name["128 px, JPEG 60"].accuracy > by_name["grey"].accuracy
    assert by_name["grey"].changed > 0.5
    text = render_guarantees(check)
    assert all(name in text for name in by_name)
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("nothing is promised")


def test_shifts_can_be_left_out(tiny_bundle: Path, labelled_folder: Path) -> None:
    cascade = Cascade(tiny_bundle)
    evaluation = evaluate(cascade, scan(labelled_folder).photos)
    check = check_guarantees(
        cascade, evaluation.photos, evaluation.probabilities["cascade"], evaluation.truth, None, corrupted=0
    )
    assert [row.name for row in check.rows] == [AS_THEY_ARE]
