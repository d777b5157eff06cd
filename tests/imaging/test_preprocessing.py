from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cascade.errors import BundleError
from cascade.imaging.preprocessing import INTERPOLATIONS, InputSpec, prepare

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return Image.open(HERE / "data" / "coffee.jpg").convert("RGB")


def cut(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int))


def golden_cases() -> list[tuple[tuple[int, int], dict[str, Any], np.ndarray]]:
    with np.load(HERE / "reference" / "preprocessing.npz") as file:
        cases = json.loads(str(file["cases"]))
        return [(tuple(case["size"]), case["spec"], file[str(i)]) for i, case in enumerate(cases)]


GOLDEN = golden_cases()


@pytest.mark.parametrize(("size", "spec", "expected"), GOLDEN)
def test_golden_values_of_timm(
    coffee: Image.Image, size: tuple[int, int], spec: dict[str, Any], expected: np.ndarray
) -> None:
    wrong = difference(prepare(cut(coffee, size), InputSpec(**spec)), expected)
    # timm's resize is one call, in which Pillow 13 takes the height of a tall photo first; ours always takes
    # the width first (see `test_same_pixels_with_every_pillow`).
    assert wrong.max() <= 2
    assert wrong.mean() <= 0.15


def stored_resizes() -> list[tuple[tuple[int, int], InputSpec, np.ndarray]]:
    with np.load(HERE / "reference" / "resize.npz") as file:
        found = []
        for index, case in enumerate(json.loads(str(file["facts"]))["cases"]):
            spec = InputSpec(*case["result"], interpolation=case["interpolation"])
            found.append((tuple(case["size"]), spec, file[str(index)]))
        return found


@pytest.mark.parametrize(("size", "spec", "expected"), stored_resizes())
def test_same_pixels_with_every_pillow(
    coffee: Image.Image, size: tuple[int, int], spec: InputSpec, expected: np.ndarray
) -> None:
    """To the last bit what Pillow 12 gives in one call, also where Pillow 13 swaps its passes."""
    assert difference(prepare(cut(coffee, size), spec), expected).max() == 0


@pytest.mark.parametrize("crop", ["squash", "center"])
def test_a_strip_needs_little_memory_between_the_passes(crop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *args: Any, **more: Any) -> Image.Image:
        sizes.append(size[0] * size[1])
        return resize(image, size, *args, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    strip = Image.new("RGB", (10, 400_000), (200, 100, 50))
    assert (prepare(strip, InputSpec(224, 224, crop)) == (200, 100, 50)).all()
    assert max(sizes) <= 2**24


def test_golden_values_tell_crops_and_filters_apart(coffee: Image.Image) -> None:
    size, spec, expected = next(case for case in GOLDEN if case[1]["crop"] == "center")
    for change in ({"crop": "squash"}, {"crop_fraction": 1.0}, {"interpolation": "bilinear"}):
        wrong = difference(prepare(cut(coffee, size), InputSpec(**{**spec, **change})), expected)
        assert wrong.mean() > 0.5, change


@pytest.mark.train
@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(224, 224),
        InputSpec(224, 224, "center", 0.875),
        InputSpec(260, 260, "center", 0.89),
        InputSpec(96, 64, "center", 0.9),
    ],
)
@pytest.mark.parametrize(
    "size", [(600, 400), (224, 224), (225, 223), (449, 301), (1000, 31), (1, 1), (1600, 1200)]
)
def test_equals_timm(coffee: Image.Image, size: tuple[int, int], spec: InputSpec) -> None:
    timm_data = pytest.importorskip("timm.data")
    image = coffee.resize(size, Image.Resampling.LANCZOS)
    transform = timm_data.create_transform(
        (3, spec.height, spec.width),
        is_training=False,
        interpolation="bicubic",
        crop_mode=spec.crop,
        crop_pct=spec.crop_fraction,
        use_prefetcher=True,
    )
    expected = np.asarray(transform(image)).transpose(1, 2, 0)
    assert difference(prepare(image, spec), expected).max() == 0


@pytest.mark.parametrize("crop", ["squash", "center"])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5000), (5000, 1), (20000, 10), (10, 20000), (2, 3), (30000, 30000 // 224)]
)
def test_extreme_shapes(crop: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    pixels = prepare(image, InputSpec(224, 192, crop, 0.875))
    assert pixels.shape == (192, 224, 3)
    assert pixels.dtype == np.uint8
    # A picture of one colour stays that colour, wherever the crop falls.
    assert (pixels == (200, 100, 50)).all()


@pytest.mark.parametrize("tall", [False, True])
def test_long_photos_are_cropped_before_they_are_resized(
    coffee: Image.Image, monkeypatch: pytest.MonkeyPatch, tall: bool
) -> None:
    image = coffee.resize((2000, 20), Image.Resampling.LANCZOS)
    image = image.transpose(Image.Transpose.ROTATE_90) if tall else image
    spec = InputSpec(64, 64, "center", 0.9)
    quick = prepare(image, spec)
    monkeypatch.setattr("cascade.imaging.preprocessing.LARGEST_SCALED", 10**9)
    # Not bit for bit: the part is computed from other rounded positions.
    assert difference(quick, prepare(image, spec)).mean() < 1.0


def test_an_image_that_fits_is_not_touched(coffee: Image.Image) -> None:
    image = cut(coffee, (64, 48))
    assert (prepare(image, InputSpec(64, 48)) == np.asarray(image)).all()
    assert (prepare(image, InputSpec(64, 48, "center")) == np.asarray(image)).all()


@pytest.mark.parametrize("interpolation", sorted(INTERPOLATIONS))
def test_every_interpolation_is_antialiased(interpolation: str) -> None:
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    pixels = prepare(Image.fromarray(stripes), InputSpec(32, 32, interpolation=interpolation))
    assert np.abs(pixels[:, 4:-4].astype(int) - 128).max() <= 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 7}, "InputSpec.width is 7; expected"),
        ({"height": 5000}, "InputSpec.height is 5000; expected"),
        ({"crop": "stretch"}, "InputSpec.crop is 'stretch'; expected"),
        ({"crop_fraction": 0.0}, "InputSpec.crop_fraction is 0.0; expected"),
        ({"crop_fraction": float("nan")}, "InputSpec.crop_fraction is nan; expected"),
        ({"interpolation": "nearest"}, "InputSpec.interpolation is 'nearest'; expected"),
        ({"colour": "BGR"}, "InputSpec.colour is 'BGR'; expected"),
        ({"reducing_gap": 0.5}, "InputSpec.reducing_gap is 0.5; expected"),
        ({"reducing_gap": float("nan")}, "InputSpec.reducing_gap is nan; expected"),
    ],
)
def test_wrong_specifications_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        InputSpec(**{"width": 224, "height": 224, **change})


def test_specification_survives_json() -> None:
    spec = InputSpec(240, 200, "center", 0.882, "lanczos", reducing_gap=1.5)
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(BundleError, match="contains unknown field `mean`; it knows width, height, crop"):
        InputSpec.from_dict({**spec.to_dict(), "mean": 0.5})
    with pytest.raises(BundleError, match="missing required field `height`"):
        InputSpec.from_dict({"width": 224})


def test_decode_target() -> None:
    assert InputSpec(224, 192).decode_target == (224, 192)
    assert InputSpec(224, 224, "squash", 0.875).decode_target == (224, 224)
    assert InputSpec(224, 224, "center", 0.875).decode_target == (256, 256)
