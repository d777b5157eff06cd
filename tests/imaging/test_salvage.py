from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cascade.errors import ImageError
from cascade.imaging.decoding import load_image
from cascade.imaging.salvage import completed_progressive, decoded_part

COFFEE = Path(__file__).parents[1] / "data" / "coffee.jpg"


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return Image.open(COFFEE).convert("RGB")


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened_and_failed(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    with pytest.raises(OSError, match="truncated"):
        image.load()
    return image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_share_is_that_of_the_rows(coffee: Image.Image, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray((np.asarray(coffee.convert("L")).astype(np.uint16) << 8) + 1)
    else:
        image = coffee.quantize(200) if mode == "P" else coffee.convert(mode)
    # Uncompressed rows, so that three quarters of the bytes are three quarters of the rows.
    data = encode(image, "PNG", compress_level=0)
    part = decoded_part(opened_and_failed(data[: len(data) * 3 // 4]))
    assert part is not None
    picture, share = part
    assert share == pytest.approx(0.75, abs=0.03)
    assert picture.height == pytest.approx(300, abs=10)
    assert (np.asarray(picture)[:-1] == np.asarray(image)[: picture.height - 1]).all()


def test_half_is_not_enough(coffee: Image.Image) -> None:
    data = encode(coffee, "PNG", compress_level=0)
    assert decoded_part(opened_and_failed(data[: len(data) // 2])) is None
    assert decoded_part(opened_and_failed(data[: len(data) * 11 // 20])) is not None


def test_failed_image_fails_again(coffee: Image.Image) -> None:
    image = opened_and_failed(encode(coffee, "JPEG")[:-6000])
    assert decoded_part(image) is not None
    with pytest.raises(OSError, match="truncated"):
        image.load()


def test_images_that_are_no_files_have_no_part(coffee: Image.Image) -> None:
    assert decoded_part(coffee) is None


def test_interlaced_files_without_their_last_pass_are_refused(coffee: Image.Image) -> None:
    # GIF interlaces in passes of 1/8, 1/8, 1/4 and 1/2 of the rows.
    data = encode(coffee, "GIF", interlace=1)
    with pytest.raises(ImageError, match="truncated"):
        load_image(data[: int(len(data) * 0.45)])


def test_only_progressive_jpegs_can_be_completed(coffee: Image.Image) -> None:
    plain = encode(coffee, "JPEG")
    progressive = encode(coffee, "JPEG", progressive=True)
    assert completed_progressive(io.BytesIO(plain[:-4000])) is None
    assert completed_progressive(io.BytesIO(progressive)) is None  # has its end
    assert completed_progressive(io.BytesIO(progressive[:1000])) is None  # first scan only
    completed = completed_progressive(io.BytesIO(progressive[:-4000]))
    assert completed is not None
    with Image.open(completed) as image:
        image.load()


def test_a_progressive_thumbnail_does_not_count(coffee: Image.Image) -> None:
    # A thumbnail in the metadata has scans of its own; the photo has not begun yet.
    thumbnail = encode(coffee.resize((64, 48)), "JPEG", progressive=True)
    progressive = encode(coffee, "JPEG", progressive=True, exif=b"Exif\0\0" + thumbnail)
    first_scan = progressive.index(b"\xff\xda", progressive.rindex(b"\xff\xc2"))
    assert completed_progressive(io.BytesIO(progressive[: first_scan + 200])) is None


def test_completion_cannot_go_on_for_ever(coffee: Image.Image) -> None:
    data = encode(coffee, "JPEG", progressive=True)
    for length in range(200, 2500, 7):
        try:
            load_image(data[:length])
        except ImageError as error:
            known = error.code in ("truncated", "damaged")
            if not known:
                raise
