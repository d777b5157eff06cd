"""Router and arbiter: the graphs compute their documented formulas, and the fit does what it claims."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from cascade.onnx_runtime import ort

pytest.importorskip("torch", reason="needs the extra `train`")

from cascade.evaluation.calibration_metrics import expected_calibration_error
from cascade.inference.arbitration import arbiter_feeds
from cascade.labels import LabelTree
from cascade.training.calibration.arbiter import arbitrate, fit_arbiter
from cascade.training.calibration.budget_steps import BUDGETS
from cascade.training.calibration.cross_fitting import Calibration, calibrate, cut
from cascade.training.calibration.router import expected_gain
from cascade.training.calibration.stage_logits import StageLogits
from cascade.training.export.decision_graphs import (
    ArbiterParameters,
    RouterParameters,
    arbiter_graph,
    router_graph,
)

PARENTS = {"a": "left", "b": "left", "c": "right", "d": "right", "e": "right"}
TREE = LabelTree(tuple(PARENTS), PARENTS)
EXPERTS = {"one": ("a", "b"), "two": ("c", "d", "e")}
PARAMETERS = ArbiterParameters(
    1.3, np.array([0.8, 1.7]), np.array([0.6, 0.4]), np.array([-0.3, -0.1]), np.array([0.2, -0.5, 0.4])
)


def outputs(n: int = 400, seed: int = 0, *, helpful: bool = True) -> StageLogits:
    """A general model that knows the group better than the leaf, and experts that know the leaf."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, n)
    general = rng.normal(size=(n, 5)) * 1.5 + 1.2 * np.eye(5)[y]
    general += 2.0 * (TREE.membership @ TREE.membership.T)[y]
    experts = {}
    for name, own in EXPERTS.items():
        index = [TREE.labels.index(x) for x in own]
        at = np.array([index.index(t) if t in index else len(own) for t in y])
        strength = 4.0 if helpful else 0.0
        experts[name] = rng.normal(size=(n, len(own) + 1)) + strength * np.eye(len(own) + 1)[at]
    return StageLogits(general, experts, y)


def run(model: object, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def feeds_of(data: StageLogits, deferred: np.ndarray) -> dict[str, np.ndarray]:
    widths = {name: len(own) + 1 for name, own in EXPERTS.items()}
    expert_logits = {
        name: data.experts[name][deferred[:, i]].astype(np.float32)
        for i, name in enumerate(EXPERTS)
        if deferred[:, i].any()
    }
    return arbiter_feeds(data.general.astype(np.float32), expert_logits, deferred, widths)


def by_hand(data: StageLogits, deferred: np.ndarray, p: ArbiterParameters) -> np.ndarray:
    """The formula of `cascade.training.export.decision_graphs`, photo by photo and label by label."""
    rows = []
    for n in range(len(data.targets)):
        general = np.exp(data.general[n] / p.temperature)
        prob = general / general.sum()
        z = np.log(prob)
        for i, (name, own) in enumerate(EXPERTS.items()):
            if not deferred[n, i]:
                continue
            q = np.exp(data.experts[name][n] / p.expert_temperature[i])
            q /= q.sum()
            foreign = sum(prob[k] for k, label in enumerate(TREE.labels) if label not in own)
            for k, label in enumerate(TREE.labels):
                r = q[own.index(label)] if label in own else q[-1] * prob[k] / foreign
                z[k] += p.expert_weight[i] * np.log(r) + p.general_shift[i] * np.log(prob[k])
        e = np.exp(z - z.max())
        sure = (e / e.sum()).max()
        k0, k1, k2 = p.sharpness
        e = np.exp((z - z.max()) * np.exp(k0 + k1 * sure + k2 * sure**2))
        rows.append(e / e.sum())
    return np.array(rows)


@pytest.mark.parametrize("mask", [(0, 0), (1, 0), (0, 1), (1, 1), "mixed"])
def test_the_arbiter_graph_computes_its_formula(mask: object) -> None:
    data = outputs(40)
    deferred = np.zeros((40, 2), dtype=bool)
    deferred[:] = np.random.default_rng(1).random((40, 2)) < 0.5 if mask == "mixed" else mask
    graph = arbiter_graph(PARAMETERS, TREE.labels, EXPERTS, {})
    found = run(graph, feeds_of(data, deferred))
    np.testing.assert_allclose(found, by_hand(data, deferred, PARAMETERS), atol=2e-5)
    np.testing.assert_allclose(arbitrate(PARAMETERS, data, TREE, EXPERTS, deferred), found, atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)


def test_with_nobody_asked_the_arbiter_is_temperature_scaling() -> None:
    data = outputs(40)
    plain = dataclasses.replace(PARAMETERS, sharpness=np.zeros(3))
    graph = arbiter_graph(plain, TREE.labels, EXPERTS, {})
    found = run(graph, feeds_of(data, np.zeros((40, 2), dtype=bool)))
    expected = np.exp(data.general / 1.3)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-5)


def test_an_expert_that_disowns_a_photo_leaves_it_to_the_others() -> None:
    general = np.log(np.array([[0.1, 0.1, 0.5, 0.2, 0.1]], dtype=np.float32))
    silent = {"one": np.array([[-9.0, -9.0, 9.0]], dtype=np.float32)}
    deferred = np.array([[True, False]])
    graph = arbiter_graph(PARAMETERS, TREE.labels, EXPERTS, {})
    found = run(graph, arbiter_feeds(general, silent, deferred, {"one": 3, "two": 4}))[0]
    assert found[:2].sum() < 0.01
    assert found.argmax() == 2


def test_a_bundle_without_experts_has_an_arbiter_of_one_input() -> None:
    alone = ArbiterParameters(2.0, np.zeros(0), np.zeros(0), np.zeros(0))
    graph = arbiter_graph(alone, TREE.labels, {}, {"cascade.stage": "arbiter"})
    assert [i.name for i in graph.graph.input] == ["general_logits"]
    x = np.array([[2.0, 0, 0, 0, 0]], dtype=np.float32)
    expected = np.exp(x / 2) / np.exp(x / 2).sum()
    np.testing.assert_allclose(run(graph, {"general_logits": x}), expected, atol=1e-6)


def test_the_router_graph_computes_its_formula() -> None:
    rng = np.random.default_rng(3)
    parameters = RouterParameters(1.4, np.array([0.5, 0.2]))
    logits = rng.normal(size=(50, 5)).astype(np.float32) * 3
    found = run(router_graph(parameters, TREE.labels, EXPERTS, {}), {"general_logits": logits})
    p = np.exp(logits / 1.4)
    p /= p.sum(1, keepdims=True)
    for i, own in enumerate(EXPERTS.values()):
        mass = sum(p[:, TREE.labels.index(label)] for label in own)
        expected = parameters.worth[i] * (1 - p.max(1)) * mass
        np.testing.assert_allclose(found[:, i], expected, atol=1e-6)
    data = StageLogits(logits, {}, np.zeros(50, dtype=np.int64))
    np.testing.assert_allclose(expected_gain(parameters, data, TREE, EXPERTS), found, atol=1e-6)


def fitted(data: StageLogits) -> Calibration:
    return calibrate(data, TREE, EXPERTS, [1.0, 1.0], seed=0)


@functools.cache
def fitted_on(n: int, *, helpful: bool = True) -> Calibration:
    """The calibration on `outputs(n)`, computed once; nothing in it is changed by a test."""
    return fitted(outputs(n, helpful=helpful))


def test_helpful_experts_are_asked_and_make_unseen_photos_right() -> None:
    result, unseen = fitted_on(900), outputs(1200, seed=9)
    assert result.router is not None
    deferred = expected_gain(result.router, unseen, TREE, EXPERTS) > result.default.cost_weight
    cascade = arbitrate(result.arbiter, unseen, TREE, EXPERTS, deferred)
    alone = arbitrate(result.arbiter, unseen, TREE, EXPERTS, np.zeros_like(deferred))
    accuracy = [(x.argmax(1) == unseen.targets).mean() for x in (alone, cascade)]
    assert accuracy[1] > accuracy[0] + 0.10
    assert 0.05 < deferred.mean() < 0.95


def test_every_step_of_the_dial_is_worth_its_cost() -> None:
    data, result = outputs(900), fitted_on(900)
    assert {step.budget for step in result.dial} <= set(BUDGETS)
    assert len(result.dial) > 2
    nll = [step.metrics["nll"] for step in result.dial]
    assert nll == sorted(nll, reverse=True)
    assert len(set(nll)) == len(nll)
    assert result.default in result.dial
    costs = [step.metrics["mean_cost"] for step in result.dial]
    assert costs == sorted(costs)
    assert costs[0] == 1.0
    assert not result.dial[0].held_out_deferred.any()
    gain = expected_gain(result.router, data.rows(result.held_out_rows), TREE, EXPERTS)
    for step in result.dial:
        assert (step.held_out_deferred == (gain > step.cost_weight)).all()
    summary = result.summary["router"]
    assert summary["curve"][0]["nll"] == summary["never"]["nll"]


def test_an_expert_that_knows_nothing_is_not_asked_for_the_one_that_does() -> None:
    data = outputs(900)
    noise = np.random.default_rng(5).normal(size=data.experts["two"].shape)
    result = fitted(StageLogits(data.general, {"one": data.experts["one"], "two": noise}, data.targets))
    deferred = result.default.held_out_deferred.mean(0)
    assert deferred[0] > 3 * deferred[1]


def test_useless_experts_do_little_harm() -> None:
    result, unseen = fitted_on(900, helpful=False), outputs(1200, seed=9, helpful=False)
    everybody = np.ones((1200, 2), dtype=bool)
    deferred = arbitrate(result.arbiter, unseen, TREE, EXPERTS, everybody)
    alone = arbitrate(result.arbiter, unseen, TREE, EXPERTS, ~everybody)
    accuracy = [(x.argmax(1) == unseen.targets).mean() for x in (alone, deferred)]
    assert accuracy[1] > accuracy[0] - 0.02


def test_calibration_mends_an_overconfident_general_model() -> None:
    data = outputs(900)
    loud = StageLogits(data.general * 4, data.experts, data.targets)
    mended, plain = fitted(loud).arbiter, fitted_on(900).arbiter
    assert mended.temperature > 2 * plain.temperature
    nobody = np.zeros((900, 2), dtype=bool)
    calm = arbitrate(mended, loud, TREE, EXPERTS, nobody)
    np.testing.assert_allclose(calm, arbitrate(plain, data, TREE, EXPERTS, nobody), atol=0.06)


def without_experts(n: int, seed: int) -> StageLogits:
    """Labels drawn from known probabilities, and logits that are the sharper the less sure they are."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(5, 0.4), n).clip(1e-4)
    p /= p.sum(1, keepdims=True)
    y = np.array([rng.choice(5, p=row) for row in p])
    return StageLogits(np.log(p) * (2.2 - 1.4 * p.max(1, keepdims=True)), {}, y)


def test_the_middle_is_no_more_confident_than_the_ends() -> None:
    fit, unseen = without_experts(1500, 0), without_experts(4000, 1)
    arbiter = fit_arbiter(fit, TREE, {})
    nobody = np.zeros((4000, 0), dtype=bool)

    def error(parameters: ArbiterParameters) -> float:
        expert_logits = arbitrate(parameters, unseen, TREE, {}, nobody)
        return expected_calibration_error(expert_logits.max(1), expert_logits.argmax(1) == unseen.targets)

    one_for_all = min(
        error(dataclasses.replace(arbiter, temperature=t, sharpness=np.zeros(3)))
        for t in np.linspace(0.8, 2.5, 18)
    )
    assert error(arbiter) < 0.7 * one_for_all


def test_confidence_is_right_where_a_router_asks() -> None:
    """Doubtful photos are not like all photos; the arbiter is fitted for both."""
    data, unseen = outputs(1500), outputs(4000, seed=9)
    arbiter = fit_arbiter(data, TREE, EXPERTS)
    alone = arbitrate(arbiter, unseen, TREE, EXPERTS, np.zeros((4000, 2), dtype=bool))
    doubtful = alone.max(1) < np.median(alone.max(1))
    for deferred in (doubtful[:, None] & [[True, True]], np.ones((4000, 2), dtype=bool)):
        expert_logits = arbitrate(arbiter, unseen, TREE, EXPERTS, deferred)
        bias = expert_logits.max(1).mean() - (expert_logits.argmax(1) == unseen.targets).mean()
        assert abs(bias) < 0.03


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second = fitted_on(600), fitted(outputs(600))
    assert first.arbiter.to_dict() == second.arbiter.to_dict()
    assert first.default.cost_weight == second.default.cost_weight
    assert (first.default.fit_probabilities == second.default.fit_probabilities).all()


def test_photos_that_fitted_are_apart_from_those_held_out() -> None:
    result = fitted_on(600)
    together = np.concatenate([result.fit_rows, result.held_out_rows])
    assert sorted(together) == list(range(600))
    assert len(result.held_out_rows) == 300  # half of them
    assert result.default.fit_probabilities.shape == (300, 5)
    assert result.default.held_out_probabilities.shape == (300, 5)
    for probabilities in (result.default.fit_probabilities, result.default.held_out_probabilities):
        np.testing.assert_allclose(probabilities.sum(1), 1)


def test_answers_on_the_fit_part_are_cross_fitted() -> None:
    """With a seed of its own every partition of folds gives other numbers, so none saw its own photo."""
    data, result = outputs(600), fitted_on(600)
    fit = data.rows(result.fit_rows)
    gain = expected_gain(result.router, fit, TREE, EXPERTS)
    in_sample = arbitrate(result.arbiter, fit, TREE, EXPERTS, gain > result.default.cost_weight)
    assert 0 < np.abs(in_sample - result.default.fit_probabilities).mean() < 0.05


def test_labels_of_one_or_two_photos_calibrate_in_silence() -> None:
    data = outputs(600)
    rare = np.flatnonzero(data.targets == 4)
    few = data.rows(np.setdiff1d(np.arange(600), rare[2:]))  # warnings are errors here
    result = fitted(few)
    assert sorted([*result.fit_rows, *result.held_out_rows]) == list(range(len(few.targets)))
    nobody_thrice = data.rows(np.concatenate([np.flatnonzero(data.targets == k)[:2] for k in range(5)]))
    first, second = cut(nobody_thrice.targets, seed=0)
    assert sorted([*first, *second]) == list(range(10))
