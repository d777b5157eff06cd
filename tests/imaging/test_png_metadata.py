"""A PNG whose text or colour profile is over Pillow's limits is read with the same pixels and colours."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from cascade.errors import ImageError
from cascade.imaging.decoding import load_image
from cascade.imaging.png_metadata import is_over_limit, without_metadata

COFFEE = Path(__file__).parents[1] / "data" / "coffee.jpg"
ENOUGH = PngImagePlugin.MAX_TEXT_CHUNK + 1
#: Chunks whose unpacked content is over a limit.
LARGE = {
    "zTXt": b"note\0\0" + zlib.compress(b"x" * ENOUGH),
    "iTXt": b"note\0\1\0\0\0" + zlib.compress(b"x" * ENOUGH),
    "tEXt": b"note\0" + b"x" * (PngImagePlugin.MAX_TEXT_MEMORY + 1),
}


def chunk(name: str, content: bytes) -> bytes:
    body = name.encode() + content
    return len(content).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)


def png(image: Image.Image, extra: bytes = b"", *, at_end: bool = False, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    data = buffer.getvalue()
    position = data.index(b"IEND") - 4 if at_end else 33  # behind the header
    return data[:position] + extra + data[position:]


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    with Image.open(COFFEE) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_a_large_text_costs_no_pixel(coffee: Image.Image, name: str, at_end: bool) -> None:
    data = png(coffee, chunk(name, LARGE[name]), at_end=at_end)
    with pytest.raises(ValueError, match="MAX_TEXT_") as refused:
        Image.open(io.BytesIO(data)).load()
    assert is_over_limit(refused.value)
    warnings: list[str] = []
    loaded = load_image(data, on_warning=warnings.append)
    assert np.array_equal(loaded, coffee)
    assert warnings == []


def test_a_large_profile_is_applied(coffee: Image.Image) -> None:
    # sRGB with two primaries exchanged and another name: ignoring it shows. What follows its end is not read.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"    "), (b"gXYZ", b"rXYZ"), (b"    ", b"gXYZ")):
        profile = profile.replace(old, new, 1)
    profile = profile.replace("sRGB".encode("utf-16-be"), "ours".encode("utf-16-be"))
    plain = load_image(png(coffee, icc_profile=profile))
    assert not np.array_equal(plain, coffee)
    content = b"large\0\0" + zlib.compress(profile + bytes(ENOUGH))
    assert np.array_equal(load_image(png(coffee, chunk("iCCP", content))), plain)


def test_transparency_is_kept(coffee: Image.Image) -> None:
    clear = coffee.convert("RGBA")
    clear.putalpha(0)
    assert np.asarray(load_image(png(clear, chunk("zTXt", LARGE["zTXt"])))).min() == 255


def test_a_large_text_does_not_hide_damage(coffee: Image.Image) -> None:
    data = png(coffee, chunk("zTXt", LARGE["zTXt"]))
    with pytest.raises(ImageError) as caught:
        load_image(data[: data.index(b"IDAT") + 500])
    assert caught.value.code == "truncated"


def test_a_profile_that_unpacks_without_end_is_not_unpacked() -> None:
    content = b"bomb\0\0" + zlib.compress(bytes(64 << 20))
    assert without_metadata(io.BytesIO(png(Image.new("RGB", (2, 2)), chunk("iCCP", content))))[1] is None
