"""Raw photos: recognised by content, read by the picture inside, and never what Pillow makes of them."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cascade.errors import ImageError
from cascade.imaging.decoding import load_image
from cascade.imaging.files import FindOptions, find_photos
from cascade.imaging.raw_photos import RAW_SUFFIXES, raw_kind

COFFEE = Path(__file__).parents[1] / "data" / "coffee.jpg"
BYTE, ASCII, SHORT, LONG, SRATIONAL = 1, 2, 3, 4, 10
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, SRATIONAL: 8}
_CODES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", SRATIONAL: "i"}

Tags = dict[int, tuple[int, list[int]]]


def tiff(*directories: Tags, blobs: tuple[bytes, ...] = (), linked: bool = False) -> bytes:
    """A little-endian TIFF: the first directory points to the others (tag 330), or each to the next.

    The value -N of a tag is the offset of blob N - 1.
    """
    whole = [dict(directory) for directory in directories]
    if len(whole) > 1 and not linked:
        whole[0][330] = (LONG, [0] * (len(whole) - 1))
    starts, position = [], 8
    for directory in whole:
        starts.append(position)
        outside = sum(size for size in map(_length, directory.values()) if size > 4)
        position += 2 + 12 * len(directory) + 4 + outside
    places = [position + sum(map(len, blobs[:index])) for index in range(len(blobs))]
    if len(whole) > 1 and not linked:
        whole[0][330] = (LONG, starts[1:])
    data = struct.pack("<2sHI", b"II", 42, 8)
    for index, directory in enumerate(whole):
        following = starts[index + 1] if linked and index + 1 < len(whole) else 0
        behind = starts[index] + 2 + 12 * len(directory) + 4
        entries, outside = b"", b""
        for tag, (kind, values) in sorted(directory.items()):
            signed = kind == SRATIONAL
            values = [places[-v - 1] if v < 0 and not signed else v for v in values]
            count = len(values) // 2 if signed else len(values)
            content = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
            if len(content) > 4:
                content, outside = struct.pack("<I", behind + len(outside)), outside + content
            entries += struct.pack("<HHI", tag, kind, count) + content.ljust(4, b"\0")
        data += struct.pack("<H", len(directory)) + entries + struct.pack("<I", following) + outside
    return data + b"".join(blobs)


def _length(entry: tuple[int, list[int]]) -> int:
    kind, values = entry
    return len(values) * (4 if kind == SRATIONAL else _SIZES[kind])


def text(value: str) -> tuple[int, list[int]]:
    return ASCII, [*value.encode(), 0]


def sensor(width: int, height: int, blob: int) -> Tags:
    """The directory of a Bayer pattern (RGGB) of 16 bits without compression."""
    return {
        254: (LONG, [0]), 256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [16]), 259: (SHORT, [1]),
        262: (SHORT, [32803]), 273: (LONG, [-blob]), 277: (SHORT, [1]), 278: (LONG, [height]),
        279: (LONG, [width * height * 2]), 33421: (SHORT, [2, 2]), 33422: (BYTE, [0, 1, 1, 2]),
        50717: (LONG, [65535]),
    }  # fmt: skip


def dng(picture: Image.Image, preview_size: tuple[int, int] | None, orientation: int = 1) -> bytes:
    """A DNG whose sensor saw a picture, with a preview of that size in it."""
    pixels = np.asarray(picture.crop((0, 0, picture.width & ~1, picture.height & ~1)))
    bayer = np.empty(pixels.shape[:2], np.uint16)
    linear = ((pixels / 255.0) ** 2.2 * 65535).astype(np.uint16)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        bayer[row::2, column::2] = linear[row::2, column::2, channel]
    height, width = bayer.shape
    identity = [value for row in np.eye(3, dtype=int).tolist() for one in row for value in (one, 1)]
    camera: Tags = {
        271: text("Test"), 272: text("Camera"), 274: (SHORT, [orientation]), 50706: (BYTE, [1, 4, 0, 0]),
        50708: text("Test Camera"), 50721: (SRATIONAL, identity), 50778: (SHORT, [21]),
    }  # fmt: skip
    if preview_size is None:
        return tiff(camera | sensor(width, height, 1), blobs=(bayer.tobytes(),))
    buffer = io.BytesIO()
    picture.resize(preview_size).save(buffer, "JPEG", quality=95, subsampling=0)
    preview: Tags = {
        254: (LONG, [1]), 256: (LONG, [preview_size[0]]), 257: (LONG, [preview_size[1]]),
        258: (SHORT, [8, 8, 8]), 259: (SHORT, [7]), 262: (SHORT, [6]), 273: (LONG, [-2]), 277: (SHORT, [3]),
        278: (LONG, [preview_size[1]]), 279: (LONG, [len(buffer.getvalue())]),
    }  # fmt: skip
    return tiff(camera | preview, sensor(width, height, 1), blobs=(bayer.tobytes(), buffer.getvalue()))


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    with Image.open(COFFEE) as image:
        return image.convert("RGB")


#: What begins like each kind, and its name.
BEGINNINGS = {
    "CR3 (Canon)": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "RAF (Fujifilm)": b"FUJIFILMCCD-RAW 0201FF129502" + bytes(100),
    "ORF (Olympus)": b"IIRO\x08\0\0\0" + bytes(40),
    "RW2 (Panasonic)": b"IIU\0\x18\0\0\0" + bytes(40),
    "CR2 (Canon)": b"II*\0\x10\0\0\0CR\x02\0" + bytes(40),
    "NEF (Nikon)": tiff(
        {271: text("NIKON CORPORATION"), 262: (SHORT, [2])}, sensor(8, 8, 1), blobs=(bytes(128),)
    ),
    "ARW (Sony)": tiff({271: text("SONY"), 262: (SHORT, [6])}, sensor(8, 8, 1), blobs=(bytes(128),)),
    "PEF (Pentax)": tiff({271: text("PENTAX"), 262: (SHORT, [32803])}),
    "of a camera": tiff({262: (SHORT, [2])}, {262: (SHORT, [34892])}, linked=True),
    "DNG": tiff({50706: (BYTE, [1, 4, 0, 0]), 262: (SHORT, [2])}),
}


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_every_kind_is_recognised_and_says_what_it_needs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = BEGINNINGS[kind]
    assert raw_kind(io.BytesIO(data), data[:32]) == kind
    monkeypatch.setitem(sys.modules, "rawpy", None)  # makes the import fail
    with pytest.raises(ImageError) as caught:
        load_image(data)
    assert caught.value.code == "unsupported"
    assert caught.value.message == f"is a raw photo, {kind}, which needs: pip install 'cascade-vision[raw]'"


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_a_tiff_is_no_raw_photo(coffee: Image.Image, compression: str | None) -> None:
    buffer = io.BytesIO()
    options: dict[str, Any] = {} if compression is None else {"compression": compression}
    coffee.save(buffer, "TIFF", save_all=True, append_images=[coffee], **options)
    assert raw_kind(buffer, buffer.getvalue()[:32]) is None
    assert load_image(buffer.getvalue()).size == coffee.size


@pytest.mark.parametrize("offset", [8, 0x7FFFFFF0])
def test_directories_that_point_in_circles_or_nowhere_end(offset: int) -> None:
    data = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HI", 0, offset) + bytes(20)
    assert raw_kind(io.BytesIO(data), data[:32]) is None


def test_the_picture_of_the_camera_is_read(coffee: Image.Image) -> None:
    pytest.importorskip("rawpy", reason="needs the extra `raw`")
    # The preview is another picture than the sensor's, so that it shows which of them was read.
    grey = Image.new("RGB", coffee.size, (90, 120, 150))
    loaded = load_image(dng(grey, None))
    assert np.abs(np.asarray(loaded).astype(int)[20:-20, 20:-20].std(axis=(0, 1))).max() < 3
    with_preview = dng(coffee, (600, 400))
    loaded = load_image(with_preview)
    assert loaded.size == (600, 400)
    assert np.abs(np.asarray(loaded).astype(int) - np.asarray(coffee)).mean() < 3
    reduced = load_image(with_preview, target=(100, 100))
    assert reduced.size == (300, 200)


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_the_picture_is_turned_upright(coffee: Image.Image, orientation: int, turn: int) -> None:
    pytest.importorskip("rawpy", reason="needs the extra `raw`")
    loaded = np.asarray(load_image(dng(coffee, (600, 400), orientation))).astype(int)
    assert np.abs(loaded - np.rot90(np.asarray(coffee), turn)).mean() < 3


@pytest.mark.parametrize("preview", [None, (120, 80)])
def test_without_a_picture_worth_the_name_the_photo_is_developed(
    coffee: Image.Image, preview: tuple[int, int] | None
) -> None:
    pytest.importorskip("rawpy", reason="needs the extra `raw`")
    loaded = load_image(dng(coffee, preview))
    assert loaded.size == (300, 200)
    small, wanted = (
        np.asarray(one.convert("L")).astype(float) for one in (loaded, coffee.resize((300, 200)))
    )
    assert np.corrcoef(small.ravel(), wanted.ravel())[0, 1] > 0.9
    assert np.corrcoef(small[:, ::-1].ravel(), wanted.ravel())[0, 1] < 0.5


def test_a_damaged_raw_photo_is_a_row(coffee: Image.Image) -> None:
    pytest.importorskip("rawpy", reason="needs the extra `raw`")
    with pytest.raises(ImageError, match="is a raw photo, DNG") as caught:
        load_image(dng(coffee, None)[:3000])
    assert caught.value.code in ("damaged", "unsupported")


@pytest.mark.parametrize("suffix", RAW_SUFFIXES)
def test_folders_list_raw_photos(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix.upper()}").write_bytes(b"anything")
    assert [Path(found.path).name for found in find_photos([str(tmp_path)], FindOptions())] == [
        f"a{suffix.upper()}"
    ]
