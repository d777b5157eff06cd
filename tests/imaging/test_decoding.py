from __future__ import annotations

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from cascade.errors import IMAGE_WARNING_CODES, ImageError, UsageError
from cascade.imaging.decoding import MAX_PIXELS, load_image, reduction_factor
from cascade.imaging.preprocessing import InputSpec, prepare

Image.init()  # so that Image.SAVE holds every format of this Pillow
COFFEE = Path(__file__).parents[1] / "data" / "coffee.jpg"
needs_avif = pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow has no AVIF")
FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz_images.py"

#: What undoes each EXIF orientation, in numpy, so that it is not Pillow's idea that is tested with Pillow.
#: From the standard's table: where the stored row 0 and column 0 are in the upright picture.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return Image.open(COFFEE).convert("RGB")


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def difference(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> np.ndarray:
    left, right = np.asarray(a).astype(int), np.asarray(b).astype(int)
    assert left.shape == right.shape
    return np.abs(left - right)


# --- the same answer however a photo comes in ------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 92}),
        ("JPEG", {"quality": 92, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 90}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
        ("BMP", {}),
        pytest.param("AVIF", {"quality": 80}, marks=needs_avif),
    ],
)
def test_every_source_gives_the_same_pixels(
    coffee: Image.Image, tmp_path: Path, format: str, options: dict[str, Any]
) -> None:
    # A photo that needs no reduction: with one, JPEG files are reduced by their decoder, see below.
    data = encode(coffee.resize((400, 267)), format, **options)
    path = tmp_path / "misleading.name"
    path.write_bytes(data)
    target = {"target": (224, 224), "reducing_gap": 2.0}
    expected = np.asarray(load_image(path, **target))
    assert expected.shape == (267, 400, 3)
    with Image.open(io.BytesIO(data)) as decoded:
        decoded.load()
        with path.open("rb") as file, Image.open(path) as lazy:
            sources = {
                "str": str(path),
                "bytes": data,
                "bytearray": bytearray(data),
                "memoryview": memoryview(data),
                "file": file,
                "BytesIO": io.BytesIO(data),
                "PIL": decoded,
                "lazy PIL": lazy,
                "array": np.asarray(decoded.convert("RGB")),
            }
            for name, source in sources.items():
                assert (np.asarray(load_image(source, **target)) == expected).all(), name
    assert difference(expected, coffee.resize((400, 267))).mean() < 12  # it is that photo, not another


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_reduction_is_the_same_for_every_source(coffee: Image.Image, format: str) -> None:
    big = coffee.resize((1203, 1001), Image.Resampling.LANCZOS)
    data = encode(big, format, **({"lossless": True} if format == "WEBP" else {}))
    target = {"target": (224, 224), "reducing_gap": 2.0}
    expected = np.asarray(load_image(data, **target))
    assert expected.shape == (501, 602, 3)
    assert (np.asarray(load_image(big, **target)) == expected).all()
    assert (np.asarray(load_image(np.asarray(big), **target)) == expected).all()


def test_decoder_scaling_differs_little_from_averaging(coffee: Image.Image) -> None:
    # benchmarks/decode_paths.py measures it on real photographs; this is the tripwire.
    data = encode(coffee.resize((2400, 1600), Image.Resampling.LANCZOS), "JPEG", quality=92)
    spec = InputSpec(224, 224, reducing_gap=1.5)
    target = {"target": spec.decode_target, "reducing_gap": spec.reducing_gap}
    scaled = load_image(data, **target)
    averaged = load_image(np.asarray(Image.open(io.BytesIO(data))), **target)
    assert scaled.size == averaged.size == (600, 400)
    wrong = difference(prepare(scaled, spec), prepare(averaged, spec))
    assert wrong.mean() < 1.0
    assert np.percentile(wrong, 99) <= 6


@pytest.mark.parametrize(
    "size", [(4000, 3000), (3001, 2003), (451, 449), (448, 448), (447, 900), (20000, 10)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_size_follows_from_the_factor(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", size, (90, 120, 150))
    for format in ("JPEG", "PNG"):
        loaded = load_image(encode(image, format, exif=exif), target=(224, 224), reducing_gap=1.5)
        upright = size if orientation == 1 else size[::-1]
        factor = reduction_factor(upright, (224, 224), 1.5)
        assert loaded.size == tuple(-(-side // factor) for side in upright)


def test_reduction_factor_keeps_the_gap() -> None:
    assert reduction_factor((4000, 3000), (224, 224), 1.5) == 8
    assert reduction_factor((4000, 3000), (224, 224), 2.0) == 4
    assert reduction_factor((4000, 1000), (224, 224), 2.0) == 2  # the shorter side decides
    assert reduction_factor((896, 896), (224, 224), 2.0) == 2
    assert reduction_factor((895, 896), (224, 224), 2.0) == 1
    assert reduction_factor((100_000, 100_000), (224, 224), 2.0) == 8  # what a JPEG decoder can do at most


def test_reduction_follows_the_upright_photo() -> None:
    # 1800 x 900 stored, 900 x 1800 upright. Without the turn, 900 / 400 would decide.
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (1800, 900)), "JPEG", exif=exif)
    assert load_image(data, target=(100, 400), reducing_gap=2.0).size == (450, 900)


# --- orientation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_exif_orientation(
    coffee: Image.Image, tmp_path: Path, orientation: int, format: str, options: dict[str, Any]
) -> None:
    upright = np.asarray(coffee.resize((300, 200)))
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo"
    path.write_bytes(encode(stored, format, exif=exif, **options))
    with Image.open(path) as lazy:
        for source in (path, lazy):
            loaded = load_image(source)
            assert loaded.size == (300, 200)
            assert difference(loaded, upright).mean() < 3  # JPEG; a wrong turn gives 30 and more
    # Loading the result again must not turn it again.
    assert (np.asarray(load_image(loaded)) == np.asarray(loaded)).all()


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientations_are_ignored(coffee: Image.Image, value: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert load_image(encode(coffee, "JPEG", exif=exif)).size == coffee.size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_metadata_is_no_reason_to_refuse(coffee: Image.Image) -> None:
    broken = b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\x12\x01\x03\0" * 20
    assert load_image(encode(coffee, "JPEG", exif=broken)).size == coffee.size


# --- what comes out --------------------------------------------------------------------------------------


def test_sources_are_not_changed_and_results_are_independent(coffee: Image.Image) -> None:
    image = coffee.copy()
    image.info["icc_profile"] = b"kept"
    array = np.asarray(coffee).copy()
    for source in (image, array):
        loaded = load_image(source, on_warning=lambda _: None)
        loaded.paste((0, 0, 0), (0, 0, *loaded.size))
        assert (np.asarray(source) == np.asarray(coffee)).all()
        assert loaded.info == {}
    assert image.info["icc_profile"] == b"kept"


def test_streams_are_read_from_their_position(coffee: Image.Image) -> None:
    data = encode(coffee, "PNG")
    stream = io.BytesIO(b"a header of another protocol" + data)
    stream.seek(28)
    assert (np.asarray(load_image(stream)) == np.asarray(coffee)).all()


def test_streams_that_cannot_seek(coffee: Image.Image) -> None:
    left, right = socket.socketpair()
    data = encode(coffee, "PNG")

    def send() -> None:
        with left:
            left.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    with right, right.makefile("rb") as stream:
        assert (np.asarray(load_image(stream)) == np.asarray(coffee)).all()
    sender.join()


def test_caller_keeps_the_stream(coffee: Image.Image) -> None:
    for format in ("JPEG", "PNG", "TIFF", "WEBP", "GIF"):
        stream = io.BytesIO(encode(coffee, format))
        load_image(stream)
        assert not stream.closed


# --- bad input -------------------------------------------------------------------------------------------


def code_of(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    assert "\n" not in caught.value.message
    return caught.value.code


def test_paths_that_are_no_readable_file(tmp_path: Path) -> None:
    assert code_of(tmp_path / "nothing.jpg") == "not_found"
    assert code_of(tmp_path) == "is_directory"
    (tmp_path / "loop").symlink_to("loop")
    assert code_of(tmp_path / "loop") == "unreadable"
    (tmp_path / "dangling").symlink_to("gone")
    assert code_of(tmp_path / "dangling") == "not_found"
    assert code_of("a\0b.jpg") == "unreadable"
    assert code_of("x" * 5000) == "unreadable"
    assert code_of("/dev/zero") == "unreadable"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipes_do_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert code_of(tmp_path / "pipe.jpg") == "unreadable"
    # Also when a regular file turns into a pipe between looking and opening.
    regular = Path(__file__).stat()
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: regular)
    assert code_of(tmp_path / "pipe.jpg") == "unreadable"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_files(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(COFFEE.read_bytes())
    path.chmod(0)
    assert code_of(path) == "not_permitted"


def test_forbidden_files_whoever_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("cascade.imaging.opening.open_without_waiting", refuse)
    assert code_of(COFFEE) == "not_permitted"


def test_files_that_vanish_while_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(path: Any, flags: int) -> int:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr("cascade.imaging.opening.open_without_waiting", vanish)
    assert code_of(COFFEE) == "not_found"


def test_disk_errors_are_not_blamed_on_the_photo() -> None:
    class BadDisk(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 5000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    assert code_of(BadDisk(COFFEE.read_bytes())) == "unreadable"


def test_content_that_is_no_photo() -> None:
    assert code_of(b"") == "empty"
    assert code_of(io.BytesIO()) == "empty"
    assert code_of(b"GIF") == "not_an_image"
    assert code_of(b"once upon a time") == "not_an_image"
    assert code_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "not_an_image"
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "unsupported"
    assert code_of(b"%PDF-1.7\n") == "unsupported"
    assert code_of(b"\xff\x0a" + bytes(40)) == "unsupported"
    assert code_of(b"\xff\xd8\xff\xe0" + bytes(40)) == "damaged"
    assert code_of(np.zeros((0, 5, 3), dtype=np.uint8)) == "too_small"


def test_misuse_raises() -> None:
    for wrong in (5, None, [1], object()):
        with pytest.raises(UsageError, match="cannot read a photo from"):
            load_image(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="binary mode"):
        load_image(io.StringIO("text"))  # type: ignore[arg-type]
    for array in (np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(UsageError, match=r"uint8 of shape \(H, W, 3\)"):
            load_image(array)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds one byte of compressed data."""
    good = bytearray(encode(Image.new("L", (1, 1)), "PNG"))
    good[16:24] = width.to_bytes(4) + height.to_bytes(4)
    good[29:33] = zlib.crc32(good[12:29]).to_bytes(4)
    return bytes(good)


def test_bombs_are_refused_before_they_are_decoded() -> None:
    assert code_of(png_header(60_000, 60_000)) == "too_many_pixels"
    assert code_of(png_header(100, 100), max_pixels=9_999) == "too_many_pixels"
    assert code_of(Image.new("L", (100, 100)), max_pixels=9_999) == "too_many_pixels"
    assert code_of(np.zeros((100, 100), np.uint8), max_pixels=9_999) == "too_many_pixels"
    assert np.asarray(load_image(np.zeros((100, 100), np.uint8), max_pixels=10_000)).shape == (100, 100, 3)


def test_large_photos_need_no_process_wide_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if this photo had 200 megapixels: Pillow's own limit would warn or refuse, ours is a parameter.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert load_image(COFFEE).size == (600, 400)
    assert load_image(COFFEE, target=(64, 64)).size == (300, 200)
    assert MAX_PIXELS > 108_000_000, "phones take photos of 108 megapixels"


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (20000, 10), (10, 20000)])
@pytest.mark.parametrize("crop", ["squash", "center"])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_extreme_shapes(size: tuple[int, int], crop: str, format: str) -> None:
    spec = InputSpec(224, 224, crop, 0.875)
    image = Image.new("RGB", size, (60, 160, 200))
    for source in (encode(image, format), image):
        loaded = load_image(source, target=spec.decode_target, reducing_gap=spec.reducing_gap)
        assert loaded.size == size
        assert difference(prepare(loaded, spec), np.full((224, 224, 3), (60, 160, 200))).max() <= 3


# --- truncated files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("PNG", {}), ("BMP", {}), ("TIFF", {})])
def test_truncated_photos_are_used_if_enough_decodes(
    coffee: Image.Image, format: str, options: dict[str, Any]
) -> None:
    data = encode(coffee, format, **options)
    whole = load_image(data)
    warnings: list[str] = []
    part = load_image(data[: int(len(data) * 0.8)], on_warning=warnings.append)
    assert part.width == 600
    assert 0.7 * 400 < part.height < 400
    rows = slice(400 - part.height, None) if format == "BMP" else slice(part.height)  # BMP starts below
    assert difference(np.asarray(whole)[rows], part)[1:-1].max() == 0
    assert len(warnings) == 1
    assert warnings[0].startswith("truncated: ")
    assert code_of(data[: int(len(data) * 0.3)]) == "truncated"


def test_truncated_photos_are_the_same_from_every_source(coffee: Image.Image, tmp_path: Path) -> None:
    data = encode(coffee, "JPEG", quality=90)[:-9000]
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    expected = np.asarray(load_image(path))
    assert len(expected) < 400
    lazy = Image.open(path)
    for source in (data, io.BytesIO(data), lazy):
        assert (np.asarray(load_image(source)) == expected).all()
    # A PIL image is not changed: it still complains when it is loaded.
    with pytest.raises(OSError, match="truncated"):
        lazy.load()
    lazy.close()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_truncated_photos_are_upright_and_reduced(coffee: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = coffee.resize((2400, 1600))
    data = encode(big, "JPEG", exif=exif)
    part = load_image(data[: int(len(data) * 0.8)], target=(224, 224), reducing_gap=1.5)
    assert max(part.size) == 600
    assert min(part.size) < 400
    assert (part.height > part.width) == (orientation in (6, 8))


def test_truncated_progressive_photos(coffee: Image.Image) -> None:
    data = encode(coffee, "JPEG", quality=90, progressive=True)
    whole = load_image(data)
    used = 0
    for length in range(1500, len(data), 997):  # cuts in scans, in tables, in headers
        warnings: list[str] = []
        if length < 0.3 * len(data):
            with suppress(ImageError):
                load_image(data[:length])
            continue
        part = load_image(data[:length], on_warning=warnings.append)
        used += 1
        assert part.size == whole.size
        assert warnings == ["truncated: the photo ends early and lacks its fine detail"]
        assert difference(whole, part).mean() < 12
    assert used > 40


def test_salvage_leaves_the_process_wide_switch_alone(coffee: Image.Image) -> None:
    data = encode(coffee, "JPEG", quality=90)[:-9000]
    seen: list[bool] = []
    load_image(data, on_warning=lambda _: seen.append(ImageFile.LOAD_TRUNCATED_IMAGES))
    assert seen == [False]
    with Image.open(io.BytesIO(data)) as other, pytest.raises(OSError, match="truncated"):
        other.load()


def test_good_photos_have_no_warnings(coffee: Image.Image) -> None:
    warnings: list[str] = []
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        load_image(encode(coffee, format), on_warning=warnings.append)
    assert warnings == []


def test_warning_codes_are_documented(coffee: Image.Image) -> None:
    warnings: list[str] = []
    load_image(encode(coffee, "JPEG", icc_profile=b"no profile")[:-9000], on_warning=warnings.append)
    assert [warning.partition(": ")[0] for warning in warnings] == ["truncated", "profile_ignored"]
    assert {warning.partition(": ")[0] for warning in warnings} <= set(IMAGE_WARNING_CODES)


# --- mutated files ---------------------------------------------------------------------------------------


def load_fuzzer() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_images", FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_files_give_an_image_or_an_image_error() -> None:
    # A process of its own: a crash of a decoder must fail this test, not end the run. Thousands are tried by
    # the same command without --cases.
    command = [sys.executable, str(FUZZ), "--cases", "200", "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(FUZZ.parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "200 cases, seed 7: 0 crashes" in result.stdout


def test_the_fuzzer_notices_other_exceptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(*args: Any, **kwargs: Any) -> Image.Image:
        raise KeyError("a fault in our own code")

    monkeypatch.setattr("cascade.imaging.decoding.load_image", faulty)
    with warnings.catch_warnings():
        load_fuzzer().work(0, 3, seed=1)
    done = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "done" in line]
    assert [record["outcome"].split(":")[0] for record in done] == ["EXCEPTION KeyError"] * 3


@pytest.mark.parametrize(
    ("fault", "fine"),
    [
        ({}, True),
        ({"outcome": "CRASH -11 "}, False),
        ({"outcome": "HANG"}, False),
        ({"outcome": "EXCEPTION KeyError: 5"}, False),
        ({"seconds": 5.1}, False),
    ],
)
def test_the_fuzzer_reports_faults(
    fault: dict[str, Any], fine: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"done": i, "outcome": "image", "seconds": 0.01, "rss_mb": 90.0} for i in range(50)]
    records[20].update(fault)
    assert load_fuzzer().report(records, seed=1) is fine
    growing = [{**record, "rss_mb": 90.0 + 3 * record["done"]} for record in records]
    assert load_fuzzer().report(growing, seed=1) is False
