"""Backbones: what a trained network leaves for others to start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")

from cascade.bundle.manifest import Bundle
from cascade.errors import RecipeError
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.pipeline import Pipeline
from cascade.training.fit.backbone import Network, backbone_file, build, save_backbone
from cascade.training.recipe import Recipe, linked
from cascade.training.recipe_sections import Backbone, Schedule

pytestmark = pytest.mark.train

LABELS = {"bar": "indoor", "coast": "outdoor"}
GENERAL = Recipe(
    "general",
    "general",
    LABELS,
    backbone=Backbone("tf_efficientnet_lite0", "none"),
    input=InputSpec(64, 64),
    train=Schedule(train_from="blocks.3", seed=1),
)


def expert(weights: str = "stage:general") -> Recipe:
    plan = Schedule(train_from="blocks.5", negatives=0.5, seed=2)
    backbone = Backbone("tf_efficientnet_lite0", weights)
    return Recipe("rooms", "expert", LABELS, backbone=backbone, input=InputSpec(96, 96), train=plan)


def embedding(network: Network) -> torch.Tensor:
    pixels = torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return network.eval()(pixels.to(torch.uint8))[1]


def test_an_expert_starts_from_the_trained_general_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    general = build(GENERAL)
    (tmp_path / "general").mkdir()
    save_backbone(general, GENERAL, tmp_path)
    torch.manual_seed(99)
    started = build(expert(), tmp_path)
    torch.testing.assert_close(embedding(started), embedding(general))
    # The same file starts a recipe of another bundle.
    other = build(expert(f"file:{backbone_file(tmp_path, 'general')}"))
    torch.testing.assert_close(embedding(other), embedding(general))


def test_without_a_trained_general_model_the_message_says_what_to_train(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train 'general' first"):
        build(expert(), tmp_path)


def test_what_an_expert_starts_from_is_part_of_its_identity() -> None:
    one, other = (
        linked([general, expert()])[1]
        for general in (GENERAL, GENERAL.replace(train=GENERAL.train.replace(epochs=3)))
    )
    assert one.fingerprint() != other.fingerprint()
    assert linked([GENERAL, expert("none")])[1] == expert("none")


@pytest.mark.parametrize("weights", ["stage:rooms", "stage:general"])
def test_only_experts_start_from_a_stage_and_only_from_the_general_one(weights: str) -> None:
    general = GENERAL.replace(backbone=Backbone("tf_efficientnet_lite0", "stage:general"))
    with pytest.raises(RecipeError, match="only experts start from a stage"):
        linked([general] if weights == "stage:general" else [GENERAL, expert(weights)])


def test_a_network_starts_from_the_general_model_of_a_bundle() -> None:
    """Same photo, same embedding as the bundle's own graph gives, to the half precision of its weights."""
    bundle = Bundle.load(None)
    spec = bundle.general.input
    backbone = Backbone("tf_efficientnet_lite0", "bundle:default")
    network = build(GENERAL.replace(input=spec, backbone=backbone))
    pixels = np.random.default_rng(5).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    photos = np.stack([np.asarray(Image.fromarray(p).resize((spec.width, spec.height))) for p in pixels])
    expected = Pipeline.of(bundle).run({spec: photos}, ask="never").embedding
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(photos).permute(0, 3, 1, 2))[1]
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)
    assert np.abs(expected).max() > 0.5, "a network that says nothing would pass too"


def test_another_backbone_than_the_bundles_is_refused() -> None:
    with pytest.raises(RecipeError, match="has another backbone"):
        build(GENERAL.replace(backbone=Backbone("tf_efficientnet_lite1", "bundle:default")))
