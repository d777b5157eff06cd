from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cascade.errors import ImageError
from cascade.imaging.decoding import load_image
from cascade.imaging.formats import FORMATS, as_image_error, identify

Image.init()  # so that Image.SAVE holds every format of this Pillow
COFFEE = Path(__file__).parents[1] / "data" / "coffee.jpg"


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return Image.open(COFFEE).convert("RGB")


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in ("HEIF", "AVIF")])
def test_formats_are_recognised_by_content(coffee: Image.Image, tmp_path: Path, format: str) -> None:
    options: dict[str, Any] = {"save_all": True, "append_images": [coffee]} if format == "MPO" else {}
    path = tmp_path / "picture.exe"
    path.write_bytes(encode(coffee, format, **options))
    with path.open("rb") as file, identify(file) as image:
        assert image.format == format
    assert load_image(path).size == coffee.size


@pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow has no AVIF")
def test_avif(coffee: Image.Image) -> None:
    loaded = load_image(encode(coffee, "AVIF", quality=90))
    assert np.abs(np.asarray(loaded).astype(float) - np.asarray(coffee)).mean() < 4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic(coffee: Image.Image, orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'cascade-vision[heic]'")
    registered = "HEIF" in Image.OPEN
    buffer = io.BytesIO()
    turn = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    turned = turn[orientation]
    stored = coffee if turned is None else coffee.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pillow_heif.from_pillow(stored).save(buffer, quality=90, exif=exif.tobytes())
    loaded = load_image(buffer.getvalue())
    assert loaded.size == coffee.size
    assert np.abs(np.asarray(loaded).astype(float) - np.asarray(coffee)).mean() < 4
    assert ("HEIF" in Image.OPEN) == registered, "other users of Pillow must not be affected"


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # makes the import fail
    head = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00\x00\x00\x08mdat"
    with pytest.raises(ImageError, match=r"pip install 'cascade-vision\[heic\]'") as caught:
        load_image(head)
    assert caught.value.code == "unsupported"


def test_formats_that_start_programs_are_never_opened() -> None:
    # Pillow would hand this to Ghostscript.
    importlib.import_module("PIL.EpsImagePlugin")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError) as caught:
        load_image(eps)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("format", "share"),
    [("WEBP", 0.9), ("WEBP", 0.01), ("AVIF", 0.9), ("TIFF", 0.5), ("GIF", 0.2), ("PNG", 0.01)],
)
def test_files_that_are_cut_off_are_called_that(coffee: Image.Image, format: str, share: float) -> None:
    if format not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    options = {"compression": "tiff_lzw"} if format == "TIFF" else {}
    data = encode(coffee, format, **options)
    with pytest.raises(ImageError) as caught:
        load_image(data[: int(len(data) * share)])
    assert caught.value.code == "truncated"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "not_enough_memory"),
        (Image.DecompressionBombError("too large"), "too_many_pixels"),
        (OSError(5, "Input/output error"), "unreadable"),
        (OSError("image file is truncated (7 bytes not processed)"), "truncated"),
        (EOFError(), "truncated"),
        (OSError("broken data stream when reading image file"), "damaged"),
        (SyntaxError("broken PNG file"), "damaged"),
        (OSError(-2), "damaged"),
        (RecursionError("maximum recursion depth exceeded"), "damaged"),
    ],
)
def test_what_decoders_throw(error: Exception, code: str) -> None:
    found = as_image_error(error)
    assert found.code == code
    assert found.message
    assert as_image_error(found) is found


def test_messages_are_one_line() -> None:
    assert as_image_error(ValueError("first\n  second\n")).message.endswith("(first second)")
