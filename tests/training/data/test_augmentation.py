"""Random views: repeatable, and equally sharp and compressed whatever the photo was."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("timm", reason="needs the extra `train`")

from cascade.imaging.preprocessing import InputSpec
from cascade.training.data.augmentation import random_view
from cascade.training.recipe_sections import Augmentation

pytestmark = pytest.mark.train

SPEC = InputSpec(64, 64)
#: Nothing but the loss of resolution and compression.
PLAIN = {"min_area": 1.0, "max_aspect": 1.0, "flip": 0.0, "grey": 0.0, "rotate": 0.0, "jitter": 0.0}


def noise(side: int) -> Image.Image:
    """A photo with as much fine detail as its size can hold."""
    return Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8))


def detail(view: torch.Tensor) -> float:
    """Mean difference of neighbouring pixels."""
    return float(view.float().diff(dim=2).abs().mean())


def test_the_same_seed_gives_the_same_view() -> None:
    augment = Augmentation()
    assert torch.equal(random_view(noise(200), SPEC, augment, 3), random_view(noise(200), SPEC, augment, 3))
    assert not torch.equal(
        random_view(noise(200), SPEC, augment, 3), random_view(noise(200), SPEC, augment, 4)
    )


def test_large_and_small_photos_are_shown_equally_sharp() -> None:
    augment = Augmentation(downscale=1.0, min_side=16, max_side=32, jpeg=0.0, **PLAIN)
    small = np.mean([detail(random_view(noise(64), SPEC, augment, seed)) for seed in range(20)])
    large = np.mean([detail(random_view(noise(512), SPEC, augment, seed)) for seed in range(20)])
    untouched = detail(random_view(noise(512), SPEC, Augmentation(downscale=0.0, jpeg=0.0, **PLAIN), 0))
    # Averaging 512 px leaves less contrast than averaging 64 px does, never more detail.
    assert large <= small
    assert small < 0.6 * detail(random_view(noise(64), SPEC, Augmentation(downscale=0, jpeg=0, **PLAIN), 0))
    assert untouched > 0


def test_compression_happens_at_the_reduced_size() -> None:
    plain = Augmentation(downscale=1.0, min_side=16, max_side=16, jpeg=0.0, **PLAIN)
    compressed = Augmentation(downscale=1.0, min_side=16, max_side=16, jpeg=1.0, min_quality=30, **PLAIN)
    one, other = (random_view(noise(64), SPEC, augment, 1) for augment in (plain, compressed))
    assert not torch.equal(one, other)
