"""Inputs of experts are made for the photos that experts see, and are what they always were."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cascade.imaging.preprocessing import InputSpec, prepare
from cascade.inference import photo_inputs as module
from cascade.inference.photo_inputs import PhotoInputs

SMALL, LARGE = InputSpec(16, 16), InputSpec(24, 24)


def picture(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[InputSpec]:
    """Every input that is made, in order."""
    made: list[InputSpec] = []

    def counting(image: Image.Image, spec: InputSpec) -> np.ndarray:
        made.append(spec)
        return prepare(image, spec)

    monkeypatch.setattr(module, "prepare", counting)
    return made


def test_only_photos_that_are_asked_for_are_resized_and_each_once(calls: list[InputSpec]) -> None:
    inputs = PhotoInputs((SMALL, LARGE))
    for seed in range(4):
        inputs.add(picture(seed))
    assert calls == [SMALL] * 4
    chosen = np.array([False, True, False, True])
    found = inputs.rows(LARGE, chosen)
    assert calls == [SMALL] * 4 + [LARGE] * 2
    np.testing.assert_array_equal(found, np.stack([prepare(picture(seed), LARGE) for seed in (1, 3)]))
    np.testing.assert_array_equal(inputs[LARGE], np.stack([prepare(picture(s), LARGE) for s in range(4)]))
    assert calls.count(LARGE) == 4
    np.testing.assert_array_equal(inputs[SMALL], np.stack([prepare(picture(s), SMALL) for s in range(4)]))
    assert calls.count(SMALL) == 4


def test_a_large_photo_is_not_kept(calls: list[InputSpec]) -> None:
    inputs = PhotoInputs((SMALL, LARGE))
    inputs.add(picture(0, (1025, 1024)))
    assert calls == [SMALL, LARGE]
    assert inputs.rows(LARGE, np.array([True])).shape == (1, 24, 24, 3)
    assert calls == [SMALL, LARGE]


def test_without_photos_there_are_no_inputs() -> None:
    inputs = PhotoInputs((SMALL, LARGE))
    assert len(inputs) == 0
    assert list(inputs) == []
    inputs.add(picture(0))
    assert list(inputs) == [SMALL, LARGE]
