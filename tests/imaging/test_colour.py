from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from cascade.imaging.colour import to_rgb
from cascade.imaging.decoding import load_image

COFFEE = Path(__file__).parents[1] / "data" / "coffee.jpg"


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return Image.open(COFFEE).convert("RGB").resize((240, 160))


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def mean_difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a).astype(float) - np.asarray(b).astype(float)).mean())


def no_warning(warning: str) -> None:
    raise AssertionError(warning)


def test_grey_becomes_three_equal_channels(coffee: Image.Image) -> None:
    for image in (coffee.convert("L"), coffee.convert("1")):
        pixels = np.asarray(load_image(encode(image, "PNG")))
        assert (pixels[..., 0] == np.asarray(image.convert("L"))).all()
        assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_transparency_is_put_on_white(coffee: Image.Image, factor: int) -> None:
    clear = coffee.convert("RGBA")
    alpha = np.full((160, 240), 255, dtype=np.uint8)
    alpha[:, :120] = 0
    clear.putalpha(Image.fromarray(alpha))
    pixels = np.asarray(to_rgb(clear, factor, no_warning))
    half = 120 // factor
    assert (pixels[:, : half - 1] == 255).all()
    assert (pixels[:, half + 1 :] == np.asarray(coffee.reduce(factor))[:, half + 1 :]).all()


def test_half_transparent_is_half_white() -> None:
    grey = to_rgb(Image.new("LA", (4, 4), (0, 128)), 1, no_warning)
    assert np.abs(np.asarray(grey).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("index", [0, 1])
def test_palette_transparency(index: int) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([200, 30, 30, 30, 30, 200])
    image.paste(1, (0, 0, 4, 8))
    pixels = np.asarray(load_image(encode(image, "PNG", transparency=index)))
    colours = [(200, 30, 30), (30, 30, 200)]
    colours[index] = (255, 255, 255)
    assert tuple(pixels[0, 7]) == colours[0]
    assert tuple(pixels[0, 0]) == colours[1]


def test_palette_with_bytes_of_transparency(coffee: Image.Image) -> None:
    palette = coffee.quantize(16)
    opaque = np.asarray(load_image(encode(palette, "PNG"))).astype(float)
    half = np.asarray(load_image(encode(palette, "PNG", transparency=bytes([128] * 16)))).astype(float)
    assert np.abs(half - (opaque * 128 + 255 * 127) / 255).max() <= 1.01


def test_sixteen_bits_keep_the_upper_eight(coffee: Image.Image) -> None:
    grey = np.asarray(coffee.convert("L"))
    wide = Image.fromarray((grey.astype(np.uint16) << 8) + 77)
    assert wide.mode == "I;16"
    for format in ("PNG", "TIFF"):
        pixels = np.asarray(load_image(encode(wide, format)))
        assert (pixels == grey[..., None]).all()
    big_endian = Image.frombytes(
        "I;16B", wide.size, ((grey.astype(np.uint16) << 8) + 77).astype(">u2").tobytes()
    )
    assert (np.asarray(load_image(big_endian)) == grey[..., None]).all()
    assert (np.asarray(load_image(Image.fromarray(grey.astype(np.int32) * 257))) == grey[..., None]).all()


def test_floating_point_is_taken_as_unit_range_or_as_bytes(coffee: Image.Image) -> None:
    grey = np.asarray(coffee.convert("L"))
    unit = Image.fromarray(grey.astype(np.float32) / 255)
    plain = Image.fromarray(grey.astype(np.float32))
    assert np.abs(np.asarray(load_image(encode(unit, "TIFF"))).astype(int) - grey[..., None]).max() <= 1
    assert (np.asarray(load_image(encode(plain, "TIFF"))) == grey[..., None]).all()
    holes = np.array([[np.nan, np.inf, -np.inf, 0.5]], dtype=np.float32)
    assert np.asarray(load_image(Image.fromarray(holes)))[0, :, 0].tolist() == [0, 0, 0, 127]


def test_cmyk_of_every_making(coffee: Image.Image) -> None:
    cmyk = coffee.convert("CMYK")
    assert mean_difference(load_image(encode(cmyk, "TIFF")), coffee) < 1
    # Pillow writes what Photoshop writes: inverted, with an Adobe marker. Otherwise it is a negative.
    adobe = encode(cmyk, "JPEG", quality=95)
    assert b"Adobe" in adobe
    assert mean_difference(load_image(adobe), coffee) < 5
    assert mean_difference(load_image(adobe, target=(60, 40), reducing_gap=1.0), coffee.reduce(4)) < 5


def test_ycck_jpeg(coffee: Image.Image) -> None:
    # Adobe's marker says in its last byte how four channels are meant: 0 is CMYK, 2 is YCCK. Photoshop stores
    # inverted ink, and YCC is taken of 255 - that, so the file holds Y, Cb and Cr of the negative.
    rgb = np.asarray(coffee).astype(float)
    negative = ImageOps.invert(coffee).convert("YCbCr")
    planes = [ImageOps.invert(plane) for plane in negative.split()]  # Pillow inverts them back when it writes
    stored = Image.merge("CMYK", [*planes, Image.new("L", coffee.size, 0)])
    data = bytearray(encode(stored, "JPEG", quality=98, subsampling=0))
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    data[marker + 11] = 2
    pixels = np.asarray(load_image(bytes(data))).astype(float)
    assert np.abs(pixels - rgb).mean() < 5


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries exchanged: a profile whose effect nobody can miss."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132])
    entries = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        data[green + 4 : green + 12],
        data[red + 4 : red + 12],
    )
    # Another name, since a profile called sRGB is taken to be that.
    for text in (b"sRGB", "sRGB".encode("utf-16-be")):
        data = data.replace(text, bytes(len(text) * [0x41]) if len(text) == 4 else "AAAA".encode("utf-16-be"))
    return bytes(data)


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGB")]
)
def test_profiles_are_converted(coffee: Image.Image, format: str, mode: str) -> None:
    data = encode(coffee.convert(mode), format, icc_profile=swapped_profile(), quality=95)
    warnings: list[str] = []
    loaded = load_image(data, on_warning=warnings.append)
    red, green, blue = coffee.split()
    expected = Image.merge("RGB", (green, red, blue))
    assert warnings == []
    assert mean_difference(loaded, expected) < 6
    assert mean_difference(expected, coffee) > 15  # else the test would prove nothing


def linear_grey_profile() -> bytes:
    """The smallest grey profile there is (ICC.1:2001), without a name: its curve has gamma 1.0."""
    white = b"".join(round(v * 65536).to_bytes(4) for v in (0.9642, 1.0, 0.8249))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + white, b"kTRC": b"curv" + bytes(7) + b"\x01\x01\x00\0\0"}
    table, content, offset = len(tags).to_bytes(4), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + (offset + len(content)).to_bytes(4) + len(data).to_bytes(4)
        content += data
    head = bytearray(128)
    head[8:24] = b"\x02\x10\0\0mntrGRAYXYZ "
    head[36:40] = b"acsp"
    head[68:80] = white
    head[0:4] = (128 + len(table) + len(content)).to_bytes(4)
    return bytes(head) + table + content


def test_grey_profiles_are_converted() -> None:
    # 128 of 255 is half the light here; sRGB writes half the light as 188.
    image = Image.new("L", (8, 8), 128)
    loaded = load_image(encode(image, "PNG", icc_profile=linear_grey_profile()), on_warning=no_warning)
    assert np.abs(np.asarray(loaded).astype(int) - 188).max() <= 1


def test_srgb_is_left_alone(coffee: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    loaded = load_image(encode(coffee, "PNG", icc_profile=profile), on_warning=no_warning)
    assert (np.asarray(loaded) == np.asarray(coffee)).all()


@pytest.mark.parametrize("profile", [b"nonsense", b"", swapped_profile()[:300]])
def test_damaged_profiles_are_ignored_with_a_warning(coffee: Image.Image, profile: bytes) -> None:
    warnings: list[str] = []
    loaded = load_image(encode(coffee, "PNG", icc_profile=profile), on_warning=warnings.append)
    assert (np.asarray(loaded) == np.asarray(coffee)).all()
    assert [w.partition(":")[0] for w in warnings] == (["profile_ignored"] if profile else [])


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr"])
def test_rare_modes(coffee: Image.Image, mode: str) -> None:
    if mode == "LAB":
        convert = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(coffee, convert)
    else:
        image = coffee.convert(mode)
    assert image is not None
    assert mean_difference(load_image(image), coffee) < 4


def test_animations_give_their_first_frame(coffee: Image.Image) -> None:
    others = [Image.new("RGB", coffee.size, colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encode(coffee, format, save_all=True, append_images=others)
        assert mean_difference(load_image(data), coffee) < 12, format
