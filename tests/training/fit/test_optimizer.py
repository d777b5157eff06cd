"""Every block learns at the rate that the recipe says."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")

from cascade.imaging.preprocessing import InputSpec
from cascade.training.fit.backbone import Network, build
from cascade.training.fit.optimizer import parameter_groups, rate_factor
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Backbone, Schedule

pytestmark = pytest.mark.train


def network_of(backbone: str, **plan: object) -> tuple[Network, Schedule]:
    recipe = Recipe(
        name="general",
        kind="general",
        labels={"a": "a", "b": "b"},
        backbone=Backbone(backbone, "none"),
        input=InputSpec(32, 32),
        train=Schedule(**plan),
    )
    return build(recipe), recipe.train


def rates_by_name(network: Network, plan: Schedule) -> dict[str, float]:
    """Peak rate of every trained parameter."""
    of = {id(p): group["peak"] for group in parameter_groups(network, plan) for p in group["params"]}
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert len(of) == len(trained), "every trained parameter is in one group"
    return {name: of[id(p)] for name, p in trained.items()}


def test_rates_fall_block_by_block() -> None:
    network, plan = network_of(
        "test_efficientnet", train_from="blocks.1", layer_decay=0.5, learning_rate=0.1, backbone_factor=0.2
    )
    rates = rates_by_name(network, plan)
    assert rates["head.weight"] == rates["head.bias"] == 0.1
    of_block = []
    for index in range(len(network.trained)):
        own = {rate for name, rate in rates.items() if name.startswith(f"trained.{index}.")}
        assert len(own) <= 1
        of_block += sorted(own)
    assert len(of_block) >= 5
    assert of_block[-1] == pytest.approx(0.02)
    for before, after in pairwise(of_block):
        assert before == pytest.approx(after / 2)


def test_without_layer_decay_there_are_two_rates() -> None:
    network, plan = network_of("test_efficientnet", train_from="blocks.1", backbone_factor=0.2)
    assert sorted(set(rates_by_name(network, plan).values())) == pytest.approx([2e-4, 1e-3])


@pytest.mark.parametrize(
    ("backbone", "train_from"), [("test_vit", ""), ("test_vit", "blocks.2"), ("resnet10t", "layer2")]
)
def test_other_networks_get_their_layers_from_timm(backbone: str, train_from: str) -> None:
    network, plan = network_of(backbone, train_from=train_from, layer_decay=0.5, backbone_factor=1.0)
    rates = rates_by_name(network, plan)
    body = {name: rate for name, rate in rates.items() if name.startswith("trained.")}
    assert len(set(body.values())) >= 3
    assert max(body.values()) <= rates["head.weight"]
    late, early = ("blocks.5", "blocks.3") if backbone == "test_vit" else ("layer4", "layer2")
    pick = {part: {r for n, r in body.items() if n.startswith(f"trained.{part}.")} for part in (early, late)}
    assert max(pick[early]) < min(pick[late])


def test_vectors_do_not_decay() -> None:
    for backbone, decay in (("test_efficientnet", 1.0), ("test_efficientnet", 0.7), ("test_vit", 0.7)):
        network, plan = network_of(backbone, train_from="", layer_decay=decay)
        for group in parameter_groups(network, plan):
            if group.get("weight_decay", plan.weight_decay):
                assert all(p.ndim > 1 for p in group["params"])


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    plan = Schedule(epochs=10, warmup_epochs=1.0)
    factors = [rate_factor(step, 10, plan) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0, abs=1e-9)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_the_rate_rises_once_more_at_a_restart() -> None:
    plan = Schedule(epochs=10, warmup_epochs=1.0, restart_at=6, restart_factor=0.4)
    factors = [rate_factor(step, 10, plan) for step in range(101)]
    alone = Schedule(epochs=6, warmup_epochs=1.0)
    assert factors[:60] == [rate_factor(step, 10, alone) for step in range(60)]
    assert factors[60] == pytest.approx(0.4 / 11)
    assert max(factors[60:]) == factors[70] == pytest.approx(0.4)
    assert factors[70:] == sorted(factors[70:], reverse=True)
    assert factors[100] == pytest.approx(0.0, abs=1e-9)
