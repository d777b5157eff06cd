"""Guarantees as a whole: every number comes from the part of the photos that it may come from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("mapie", reason="needs the extra `train`")

from cascade.labels import LabelTree
from cascade.training.calibration.arbiter import arbitrate, fit_arbiter
from cascade.training.calibration.cross_fitting import Calibration, calibrate
from cascade.training.calibration.guarantees import Guarantees, fit_guarantees
from cascade.training.calibration.out_of_distribution import KEPT, InScope, run_scope
from cascade.training.calibration.shortfalls import shortfalls
from cascade.training.calibration.stage_logits import StageLogits

TREE = LabelTree(tuple("abcdef"), dict(zip("abcdef", ("x", "x", "x", "y", "y", "z"), strict=True)))
CENTRES = np.random.default_rng(0).normal(size=(6, 16)) * 1.5


def photos(n: int, seed: int, strength: float = 2.5) -> InScope:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 6, n)
    logits = rng.normal(size=(n, 6)) + strength * np.eye(6)[targets]
    embedding = CENTRES[targets] + rng.normal(size=(n, 16)) * 0.6
    return InScope(logits.astype(np.float32), embedding.astype(np.float32), targets)


def fitted(known: InScope, max_error: float = 0.1) -> tuple[Calibration, Guarantees]:
    calibration = calibrate(StageLogits(known.logits.astype(float), {}, known.targets), TREE, {}, [], seed=0)
    return calibration, fit_guarantees(
        calibration, known, TREE, seed=0, max_error=max_error, metadata={"cascade.stage": "scope"}
    )


@pytest.fixture(scope="module")
def known() -> InScope:
    return photos(900, 1)


@pytest.fixture(scope="module")
def made(known: InScope) -> tuple[Calibration, Guarantees]:
    return fitted(known)


def test_the_default_point_is_the_promised_one(made: tuple[Calibration, Guarantees]) -> None:
    guarantees = made[1]
    assert guarantees.promise is not None
    assert guarantees.point == guarantees.promise.operating_point(0.1)
    assert guarantees.point.scope_threshold == guarantees.promise.scope_threshold
    assert guarantees.promise.photos == 450  # half of them


def test_most_unseen_photos_stay_in_scope(made: tuple[Calibration, Guarantees]) -> None:
    guarantees, unseen = made[1], photos(4000, 9)
    scores = run_scope(guarantees.scope, unseen.logits, unseen.embedding)
    assert (scores <= guarantees.point.scope_threshold).mean() == pytest.approx(KEPT, abs=0.03)


def test_the_reference_is_the_held_out_part(known: InScope, made: tuple[Calibration, Guarantees]) -> None:
    calibration, guarantees = made
    reference, rows = guarantees.reference, calibration.held_out_rows
    assert reference.photos == len(rows) == 450
    scores = run_scope(guarantees.scope, known.logits[rows], known.embedding[rows])
    np.testing.assert_allclose(reference.scope_scores, np.sort(scores), atol=1e-4)
    best = calibration.default.held_out_probabilities.argmax(1)
    assert dict(reference.labels) == {label: int((best == i).sum()) for i, label in enumerate(TREE.labels)}
    assert reference.deferred == 0


def test_answers_of_the_fit_part_do_not_change_what_is_tested(known: InScope) -> None:
    """Wrong labels in the part that chooses the path cost power, never the promise: the exact test is on the
    other part, and here nothing in that part can pass."""
    calibration, _ = fitted(known)
    wrong = known.targets.copy()
    wrong[calibration.held_out_rows] = (wrong[calibration.held_out_rows] + 3) % 6
    spoilt = fit_guarantees(
        calibration,
        InScope(known.logits, known.embedding, wrong),
        TREE,
        seed=0,
        max_error=0.1,
        metadata={},
    )
    assert spoilt.promise is None or spoilt.promise.smallest > 0.5


def test_without_experts_there_is_no_dial(made: tuple[Calibration, Guarantees]) -> None:
    assert made[0].dial == ()
    assert made[1].budget is None


def test_every_budget_has_promises_of_its_own() -> None:
    known = photos(600, 2, strength=1.5)
    rng, own = np.random.default_rng(7), {"one": ("a", "b", "c"), "two": ("d", "e", "f")}
    said = {}
    for name, labels in own.items():
        at = np.array([labels.index("abcdef"[t]) if "abcdef"[t] in labels else 3 for t in known.targets])
        said[name] = rng.normal(size=(600, 4)) + 4.0 * np.eye(4)[at]
    outputs = StageLogits(known.logits.astype(float), said, known.targets)
    calibration = calibrate(outputs, TREE, own, [1.0, 1.0], seed=0)
    # Three steps show it; each takes a while.
    places = {0, calibration.dial.index(calibration.default), len(calibration.dial) - 1}
    calibration = dataclasses.replace(calibration, dial=tuple(calibration.dial[i] for i in sorted(places)))
    made = fit_guarantees(calibration, known, TREE, seed=0, max_error=0.1, metadata={})
    assert made.budget is not None
    made.budget.check([1.0, 1.0], made.point)
    assert made.budget.point(calibration.default.budget).promise == made.promise
    first, last = made.budget.points[0], made.budget.points[-1]
    for point in made.budget.points:
        assert point.promise is not None
        assert point.promise.cost_weight == point.cost_weight
        assert point.promise.photos == 300
    assert first.promise is not None
    assert last.promise is not None
    # Better answers: less error can be promised.
    assert last.promise.smallest < first.promise.smallest


def test_facts_for_the_card(made: tuple[Calibration, Guarantees]) -> None:
    summary = made[1].summary["promise"]
    assert summary["max_error"] == 0.1
    assert summary["photos"] == 450
    assert summary["answered_leaf"] + summary["answered_parent"] + summary["unknown"] == pytest.approx(
        1, abs=1e-3
    )
    assert summary["answered_leaf"] > 0.3


@pytest.mark.parametrize("count", [3, 4, 7, 20, 40])
def test_few_photos_guarantee_little_and_it_is_said(count: int) -> None:
    known = photos(count, 5)
    calibration, guarantees = fitted(known)
    labels = [TREE.labels[target] for target in known.targets]
    sizes = {"fit_photos": len(calibration.fit_rows), "test_photos": 0}
    said = shortfalls(guarantees, labels, TREE, max_error=0.1, **sizes)
    assert any("0.1 takes at least 36 photos that were held out" in each for each in said)
    assert any("there are no test photos" in each for each in said)
    assert (guarantees.scope is None) == (len(calibration.fit_rows) < 20)
    # With three photos nobody believes in half a dozen labels: what is promised, if anything, is shown.
    smallest = guarantees.promise.smallest if guarantees.promise else 1.0
    assert guarantees.point.max_error == (smallest if smallest <= 0.5 else None)


def test_many_photos_leave_nothing_to_say(known: InScope, made: tuple[Calibration, Guarantees]) -> None:
    labels = [TREE.labels[target] for target in known.targets]
    assert shortfalls(made[1], labels, TREE, max_error=0.15, fit_photos=600, test_photos=300) == []
    said = shortfalls(made[1], labels, TREE, max_error=0.001, fit_photos=600, test_photos=300)
    assert len(said) == 1
    assert "0.001 takes at least 3688 photos" in said[0]


def test_two_right_answers_are_no_reason_to_be_certain() -> None:
    targets = np.array([0, 1])
    logits = 1.5 * np.eye(6)[targets]
    outputs = StageLogits(logits, {}, targets)
    said = arbitrate(fit_arbiter(outputs, TREE, {}), outputs, TREE, {}, np.zeros((2, 0), dtype=np.bool_))
    before = np.exp(logits).max(1) / np.exp(logits).sum(1)
    assert (said.max(1) > before).all(), "both were right"
    assert said.max() < 0.9, "without a prior it would be 1.0"
