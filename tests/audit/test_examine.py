"""What is odd about a file is seen in it, whatever it is called."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from made_photos import scene
from PIL import Image

from cascade.audit.examine import Examiner
from cascade.audit.listing import Listed
from cascade.audit.odd_files import odd_files
from cascade.bundle.manifest import Bundle


@pytest.fixture(scope="module")
def examiner(tiny_bundle: Path) -> Examiner:
    return Examiner(Bundle.load(tiny_bundle))


def jpeg(image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, **options)
    return data.getvalue()


def exif(orientation: int, size: tuple[int, int] | None = None) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    if size:
        made.get_ifd(0x8769).update({0xA002: size[0], 0xA003: size[1]})
    return made


def kinds(examiner: Examiner, path: Path, among: int = 10) -> dict[str, str]:
    """Return kind -> detail of a file among others of its label, all of them in colour."""
    photo, fine = Listed(str(path), "bar", "", ""), Listed("fine.jpg", "bar", "", "")
    other = path.with_name("fine.jpg")
    other.write_bytes(jpeg(scene(99)))
    facts = [examiner.examine(str(path)).facts, *[examiner.examine(str(other)).facts] * among]
    return {f.kind: f.detail for f in odd_files([photo, *[fine] * among], facts) if f.path == str(path)}


WHOLE = jpeg(scene(1))
UNREADABLE = {
    "empty": (b"", "empty"),
    "a page": (b"<html>404</html>", "not_an_image"),
    "cut off": (WHOLE[: len(WHOLE) // 4], "truncated"),
    "without header": (bytes(200) + WHOLE[200:], "not_an_image"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_cannot_be_read(name: str, examiner: Examiner, tmp_path: Path) -> None:
    content, code = UNREADABLE[name]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    found = kinds(examiner, path)
    assert list(found) == ["corrupt"]
    assert found["corrupt"].startswith(code)


def test_a_missing_file_is_corrupt(examiner: Examiner, tmp_path: Path) -> None:
    assert kinds(examiner, tmp_path / "gone.jpg")["corrupt"] == "not_found: no such file"


def test_a_file_of_which_a_part_can_be_read(examiner: Examiner, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(WHOLE[: len(WHOLE) * 8 // 10])
    assert "of the photo's rows" in kinds(examiner, path)["corrupt"]
    assert examiner.examine(str(path)).embedding is not None


ODD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "blank": ("photo.jpg", lambda: jpeg(Image.new("RGB", (200, 150), (120, 90, 60)))),
    "tiny": ("photo.jpg", lambda: jpeg(scene(2).resize((60, 45)))),
    "extreme_aspect": ("photo.jpg", lambda: jpeg(scene(2).resize((700, 100)))),
    "grey": ("photo.jpg", lambda: jpeg(scene(2).convert("L"))),
    "wrong_extension": ("photo.png", lambda: WHOLE),
    "exif": ("photo.jpg", lambda: jpeg(scene(2), exif=exif(9))),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_photos(kind: str, examiner: Examiner, tmp_path: Path) -> None:
    name, content = ODD[kind]
    (tmp_path / name).write_bytes(content())
    assert list(kinds(examiner, tmp_path / name)) == [kind]


def test_a_photo_turned_twice(examiner: Examiner, tmp_path: Path) -> None:
    # The camera wrote 120 x 160 with "turn me"; somebody turned the pixels and left the tag.
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(scene(3, (160, 120)), exif=exif(6, (120, 160))))
    assert "turned already" in kinds(examiner, path)["exif"]
    path.write_bytes(jpeg(scene(3, (160, 120)), exif=exif(6, (160, 120))))
    assert kinds(examiner, path) == {}
    assert (examiner.examine(str(path)).facts.width, examiner.examine(str(path)).facts.height) == (120, 160)


def test_the_lower_part_is_missing(examiner: Examiner, tmp_path: Path) -> None:
    broken = scene(4)
    broken.paste((128, 128, 128), (0, 80, 160, 120))
    path = tmp_path / "photo.png"
    broken.save(path)
    assert list(kinds(examiner, path)) == ["part_missing"]
    broken.paste((255, 255, 255), (0, 80, 160, 120))  # a white border is none
    broken.save(path)
    assert kinds(examiner, path) == {}


def test_grey_is_fine_where_all_are_grey(examiner: Examiner, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(scene(5).convert("L")))
    fact = examiner.examine(str(path)).facts
    photos = [Listed(str(path), "bar", "", "")] * 10
    assert list(odd_files(photos, [fact] * 10)) == []


def test_a_mirrored_photo_has_the_same_embedding(shipped_bundle: Path, tmp_path: Path) -> None:
    examiner = Examiner(Bundle.load(shipped_bundle))
    scene(6).save(tmp_path / "a.png")
    scene(6).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    scene(7).save(tmp_path / "c.png")
    a, b, c = (examiner.examine(str(tmp_path / f"{name}.png")).embedding for name in "abc")
    assert a is not None
    assert b is not None
    assert c is not None
    assert a @ b > 0.999
    assert a @ c < 0.99
