"""Copies are found through what people do to photos, and other photos are not taken for copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("scipy", reason="needs the extra audit: pip install -e '.[audit]'")

from made_photos import scene

from cascade.audit.duplicates import COARSE_THRESHOLD, COPY_THRESHOLD
from cascade.audit.matching import COARSE, Scene, coarse_scores, copy_score

DATA = Path(__file__).parents[1] / "data"


def small(image: Image.Image) -> np.ndarray:
    scale = 64 / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC))


def coffee() -> Image.Image:
    return Image.open(DATA / "coffee.jpg").convert("RGB")


def compressed(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=20)
    return Image.open(data).convert("RGB")


def cut(image: Image.Image, share: float) -> Image.Image:
    width, height = (round(side * share**0.5) for side in image.size)
    return image.crop((image.width - width, 0, image.width, height))


def marked(image: Image.Image) -> Image.Image:
    image = image.copy()
    draw, (width, height) = ImageDraw.Draw(image, "RGBA"), image.size
    draw.rectangle((0, height * 0.8, width * 0.6, height * 0.92), fill=(255, 255, 255, 120))
    return image


COPIES = {
    "the same": lambda image: image,
    "cut to 80 %": lambda image: cut(image, 0.8),
    "cut to 50 %": lambda image: cut(image, 0.5),
    "compressed": compressed,
    "resized": lambda image: image.resize((image.width // 3, image.height // 3)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cut and mirrored": lambda image: cut(image, 0.7).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "marked": marked,
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.25 + 10))),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("swapped", [False, True])
def test_copies_are_found(kind: str, swapped: bool) -> None:
    first, second = small(coffee()), small(COPIES[kind](coffee()))
    coarse = max(
        coarse_scores(first, [Scene.of(second, COARSE)])[0],
        coarse_scores(second, [Scene.of(first, COARSE)])[0],
    )
    assert coarse > COARSE_THRESHOLD
    assert copy_score(*((second, first) if swapped else (first, second))) >= COPY_THRESHOLD


def test_another_photo_is_no_copy() -> None:

    scores = [copy_score(small(scene(first)), small(scene(first + 50))) for first in range(20)]
    assert max(scores) < COPY_THRESHOLD - 0.1


def test_light_and_shade_alone_make_no_copy() -> None:
    # Two skies over two plains: brightness falls in both from top to bottom, what is on them differs.
    random = np.random.default_rng(1)
    fall = np.linspace(220, 60, 48)[:, None].repeat(64, 1)
    first, second = (
        np.clip(fall + random.normal(0, 6, fall.shape), 0, 255).astype(np.uint8) for _ in range(2)
    )
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.95
    assert copy_score(first, second) < 0.5


def test_pictures_of_any_shape_can_be_compared() -> None:
    random = np.random.default_rng(2)
    wide, tall = (random.integers(0, 256, shape, dtype=np.uint8) for shape in ((1, 64), (64, 1)))
    blank = np.zeros((64, 64), dtype=np.uint8)
    for one, other in ((wide, tall), (wide, blank), (blank, blank)):
        assert 0.0 <= copy_score(one, other) <= 1.0
