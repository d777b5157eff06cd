"""The dial: what a budget chooses, what is promised with it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran
from hypothesis import given
from hypothesis import strategies as st

from cascade import Cascade
from cascade.bundle.manifest import Bundle
from cascade.bundle.schema import Manifest
from cascade.errors import BundleError, UsageError
from cascade.evaluation.dataset import scan
from cascade.evaluation.evaluate import evaluate
from cascade.guarantees.budget import BudgetCurve, BudgetPoint
from cascade.guarantees.risk_control import Promise, PromisePoint
from cascade.inference.operating_point import choose_point
from cascade.policy import OperatingPoint

BUDGETS = (0.0, 0.25, 0.3, 1.0)


def step(budget: float, cost_weight: float | None = None, **changes: Any) -> BudgetPoint:
    weight = 2.0 * (1 - budget) if cost_weight is None else cost_weight
    promise = Promise(0.95, 400, "a test", weight, 1.5, (PromisePoint(0.05 + budget / 10, 0.9, 0.8),))
    values: dict[str, Any] = {
        "mean_cost": 1 + budget,
        "accuracy": 0.7 + budget / 10,
        "nll": 1 - budget / 10,
        "deferral_rate": budget / 2,
        "operating_point": OperatingPoint(0.9, 0.8, weight, 1.5, 0.2),
        "promise": promise,
    }
    return BudgetPoint(budget, **(values | changes))


CURVE = BudgetCurve(0.3, tuple(step(budget) for budget in BUDGETS))


@given(st.floats(0, 1))
def test_a_budget_is_never_exceeded(budget: float) -> None:
    chosen = CURVE.point(budget)
    assert chosen.budget <= budget + 1e-9
    assert not any(chosen.budget < other <= budget for other in BUDGETS)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_larger_budget_never_costs_less(one: float, other: float) -> None:
    low, high = (CURVE.point(budget) for budget in sorted((one, other)))
    assert low.mean_cost <= high.mean_cost
    assert low.cost_weight >= high.cost_weight


def test_rounding_does_not_lose_a_step() -> None:
    assert CURVE.point(0.1 + 0.1 + 0.1 - 1e-12).budget == 0.3


@pytest.mark.parametrize("budget", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(budget: float) -> None:
    with pytest.raises(UsageError, match="from 0, the general model alone, to 1"):
        CURVE.point(budget)


def test_the_curve_survives_a_round_trip() -> None:
    assert BudgetCurve.from_dict(json.loads(json.dumps(CURVE.to_dict()))) == CURVE
    silent = CURVE.replace(points=(*CURVE.points[:-1], _silent(CURVE.points[-1])))
    assert BudgetCurve.from_dict(json.loads(json.dumps(silent.to_dict()))) == silent


def _silent(point: BudgetPoint) -> BudgetPoint:
    quiet = point.operating_point.replace(max_error=None)
    return point.replace(promise=None, operating_point=quiet)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((), r"points is \(\); expected `array` of length >= 1"),
        ((step(0.2), step(1.0)), "must begin at 0"),
        ((step(0.0), step(0.5), step(0.5), step(1.0)), "does not rise after 0.5"),
        ((step(0.0), step(0.5, mean_cost=3.0), step(1.0)), "budget 1: costs less than 0.5"),
        ((step(0.0), step(0.5, 5.0), step(1.0)), "budget 0.5: costs less than 0"),
    ],
)
def test_what_is_no_dial_is_refused(points: tuple[BudgetPoint, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        BudgetCurve(0.0, points)


def test_a_dial_may_end_below_1() -> None:
    """Steps that cost more and bring nothing are not there; a larger budget is not spent."""
    short = BudgetCurve(0.5, (step(0.0), step(0.5)))
    assert short.point(1.0) == short.points[-1]
    assert BudgetCurve(0.0, (step(0.0),)).point(0.7).budget == 0.0


def test_a_default_that_is_no_step_is_refused() -> None:
    with pytest.raises(BundleError, match=r"the default, 0\.4, is no step"):
        CURVE.replace(default=0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 1.2}, "accuracy is 1.2"),
        ({"mean_cost": -1.0}, "mean_cost is -1.0"),
        ({"nll": float("nan")}, "nll is nan"),
        ({"promise": None}, "promises an error without a promise"),
        ({"operating_point": OperatingPoint(0.9, 0.8, 0.7, 1.5, 0.2)}, "tested at another operating point"),
    ],
)
def test_steps_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        step(0.5, **changes)


def test_missing_fields_are_named() -> None:
    data = CURVE.to_dict()
    del data["points"][1]["nll"]
    with pytest.raises(BundleError, match=r"points\[1\]: missing required field `nll`"):
        BudgetCurve.from_dict(data)


def _bundle(folder: Path, data: dict[str, Any]) -> Bundle:
    return Bundle.from_manifest(folder, Manifest.from_dict(data))


class TestBundle:
    def test_the_manifest_holds_the_dial(self, dial_bundle: Path) -> None:
        bundle = Bundle.load(dial_bundle)
        assert bundle.budget is not None
        data = json.loads(json.dumps(bundle.to_dict()))
        assert _bundle(dial_bundle, data) == bundle
        data["budget"]["points"][0]["accuracy"] = 2
        with pytest.raises(BundleError, match=r"budget\.points\[0\]\.accuracy is 2; expected `float` <= 1"):
            _bundle(dial_bundle, data)

    def test_budget_0_must_ask_nobody(self, dial_bundle: Path) -> None:
        bundle = Bundle.load(dial_bundle)
        assert bundle.budget is not None
        data = bundle.to_dict()
        for value in (data["budget"]["points"][0]["operating_point"], data["budget"]["points"][0]["promise"]):
            value["cost_weight"] = 0.6  # a gain of 0.5 of the cheapest expert, cost 0.7, would be worth it
        with pytest.raises(BundleError, match="budget 0 must ask nobody"):
            _bundle(dial_bundle, data)

    def test_the_default_must_be_the_default(self, dial_bundle: Path) -> None:
        data = Bundle.load(dial_bundle).to_dict()
        data["budget"]["default"] = 0.5
        with pytest.raises(BundleError, match="the default budget is not the operating point 'default'"):
            _bundle(dial_bundle, data)

    def test_without_experts_there_is_no_dial(self, dial_bundle: Path, expertless_bundle: Path) -> None:
        data = Bundle.load(expertless_bundle).to_dict()
        data["budget"] = Bundle.load(dial_bundle).to_dict()["budget"]
        with pytest.raises(BundleError, match="needs experts"):
            _bundle(expertless_bundle, data)


class TestChoice:
    def test_promises_are_those_of_the_step(self, dial_bundle: Path) -> None:
        bundle = Bundle.load(dial_bundle)
        low = choose_point(bundle, budget=0.2, max_error=0.12)
        assert (low.budget, low.point.cost_weight, low.point.max_error) == (0.0, 2.0, 0.12)
        assert low.promise is not None
        assert low.promise.smallest == 0.1
        with pytest.raises(UsageError, match=r"the smallest that can is 0\.15"):
            choose_point(bundle, budget=0.7, max_error=0.12)
        default = choose_point(bundle)
        assert default.budget is None
        assert default.point == choose_point(bundle, budget=1).point
        assert default.promise == bundle.promise

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"operating_point": "strict"}, "budget is an operating point of its own"),
            ({"ask": "always"}, "budget is for ask='router'"),
            ({"label_set": 0.9}, "label sets were tested at the default budget, 1"),
        ],
    )
    def test_contradictions_are_refused(
        self, dial_bundle: Path, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            choose_point(Bundle.load(dial_bundle), budget=0.5, **arguments)

    def test_bundles_without_a_dial_say_so(self, tiny_bundle: Path, expertless_bundle: Path) -> None:
        assert Bundle.load(tiny_bundle).budget is None
        with pytest.raises(UsageError, match="was made without a budget curve"):
            Cascade(tiny_bundle, budget=0.5)
        with pytest.raises(UsageError, match="has no experts"):
            Cascade(expertless_bundle, budget=0.5)


def test_budgets_ask_nobody_then_more_then_whoever_may_help(dial_bundle: Path, labelled_folder: Path) -> None:
    photos = scan(labelled_folder).photos
    costs = []
    for budget in (0.0, 0.5, 1.0):
        cascade = Cascade(dial_bundle, budget=budget)
        assert cascade.budget == budget
        evaluation = evaluate(cascade, photos)
        costs.append(evaluation.measure().cost)
        assert [point.budget for point in evaluation.curve] == [0.0, 0.5, 1.0]
        at = next(point for point in evaluation.curve if point.budget == budget)
        assert (at.cost, at.accuracy) == pytest.approx((costs[-1], evaluation.measure().accuracy))
        if budget == 0:
            assert not evaluation.deferred["cascade"].any()
        if budget == 1:
            assert (evaluation.deferred["cascade"] == (evaluation.gain > 0)).all()
    assert costs[0] == 1.0
    assert costs[0] < costs[1] < costs[2]


class TestCommands:
    def test_classify(self, run_cli: Callable[..., Ran], dial_bundle: Path, labelled_folder: Path) -> None:
        asked = {}
        for budget in ("0", "1"):
            ran = run_cli(
                "classify", labelled_folder, "--bundle", dial_bundle, "--budget", budget,
                "--format", "jsonl", "--explain", "--quiet",
            )  # fmt: skip
            assert ran.code == 0, ran.err
            asked[budget] = sum(bool(json.loads(line)["experts"]) for line in ran.out.splitlines())
        assert asked["0"] == 0
        assert asked["1"] > 0

    def test_no_dial_is_one_line(self, run_cli: Callable[..., Ran], labelled_folder: Path) -> None:
        ran = run_cli("classify", labelled_folder, "--budget", "0.5")
        assert ran.code == 2
        assert "was made without a budget curve" in ran.err
        assert "Traceback" not in ran.err

    def test_a_run_is_not_continued_at_another_budget(
        self, run_cli: Callable[..., Ran], dial_bundle: Path, labelled_folder: Path, tmp_path: Path
    ) -> None:
        command = ["classify", labelled_folder, "--bundle", dial_bundle, "-o", tmp_path / "rows.jsonl"]
        assert run_cli(*command, "--budget", "0").code == 0
        ran = run_cli(*command, "--budget", "1", "--resume")
        assert ran.code == 2
        assert "--budget" in ran.err

    def test_info(self, run_cli: Callable[..., Ran], dial_bundle: Path) -> None:
        ran = run_cli("info", "--bundle", dial_bundle)
        assert "budgets, on calibration photos (--budget); the default is 1" in ran.out
        assert "0.50: cost 1.40, 80.0% right, experts asked about 25%; at most 25.0% wrong" in ran.out

    def test_benchmark(self, run_cli: Callable[..., Ran], dial_bundle: Path, labelled_folder: Path) -> None:
        command = ["benchmark", labelled_folder, "--bundle", dial_bundle, "--rounds", "1", "--count", "10"]
        document = json.loads(run_cli(*command, "--json").out)
        rows = document["budget"]
        assert [row["budget"] for row in rows] == [0.0, 0.0, 0.5, 0.5, 1.0]
        costs = [row["cost"] for row in rows]
        assert costs == sorted(costs)
        assert costs[0] == 1.0
        assert rows[-1]["cost"] == document["ask"]["router"]["cost"]  # 1 is this bundle's default
        table = run_cli(*command, "--budget", "0").out
        asked = next(line for line in table.splitlines() if line.startswith("mean cost"))
        assert asked.split()[2:4] == ["1.00", "1.00"]  # router and never
        assert any(line.split() == ["budget", "0", "0.25", "0.5", "0.75", "1"] for line in table.splitlines())

    def test_evaluate(self, run_cli: Callable[..., Ran], dial_bundle: Path, labelled_folder: Path) -> None:
        command = ["evaluate", labelled_folder, "--bundle", dial_bundle, "--shifted", "0", "--json", "-"]
        document = json.loads(run_cli(*command, "--budget", "0").out)
        assert document["ways"]["cascade"]["cost"] == 1.0
        assert document["promise"][0]["promised"] == 0.25
        assert run_cli(*command, "--budget", "0", "--drift").code == 2
