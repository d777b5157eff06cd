"""`cascade.runs.gallery`: a page that holds everything and fetches nothing, whatever photos are called."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import os
import re
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from cascade import Bundle, ErrorInfo, Opinion, Prediction
from cascade.errors import OutputError
from cascade.runs.gallery import write_gallery
from cascade.runs.rows import make_row


class Page(html.parser.HTMLParser):
    """Reads a page the way a browser splits it into elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data

    def pushed(self, name: str) -> list[dict]:
        lines = "".join(self.scripts).splitlines()
        return [json.loads(m[1]) for line in lines if (m := re.fullmatch(rf"{name}\.push\((.*)\);", line))]


def row(path, label="beach", **more):
    given = {"parent": "outdoor", "confidence": 0.8, "reason": "leaf", "top": ((label, 0.8),)} | more
    return make_row(Prediction(path=os.fspath(path), label=label, **given), "b")


@pytest.fixture
def write(tmp_path, tiny_bundle):
    tree = Bundle.load(tiny_bundle).tree

    def call(rows, name="page/gallery.html"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_gallery(path, rows, tree, "tiny 1", max_pixels=10_000_000, workers=2)
        return Page(path.read_text(encoding="utf-8"))

    return call


def test_photos_with_thumbnails_links_and_routes(write, photo):
    wide = photo("album/ä b#1.jpg", "beach", size=(800, 400))
    asked = (Opinion("rooms", "kitchen", 0.9), Opinion("nature", "beach", 0.5))
    rows = [row(wide), row(photo("album/c.png", "menu"), "unknown", reason="doubtful", experts=asked)]
    page = write(rows)
    first, second = page.pushed("photos")
    assert unquote_to_bytes(first["href"]).decode() == "../album/ä b#1.jpg"
    assert "#" not in first["href"]
    image = Image.open(io.BytesIO(base64.b64decode(first["thumb"])))
    assert (image.format, image.size) == ("WEBP", (200, 100))
    assert all(
        abs(a - b) < 12 for a, b in zip(image.convert("RGB").getpixel((50, 50)), (40, 120, 220), strict=True)
    )
    assert (first["route"], second["route"]) == ("general", "rooms + nature")
    assert (second["reason"], second["guess"]) == ("doubtful", "unknown")


def test_nothing_is_fetched(write, photo):
    page = write([row(photo())])
    assert page.addresses == []
    text = "".join(page.scripts)
    assert not re.search(r"https?://|import\s|fetch\(|XMLHttpRequest", text)


def test_it_forbids_itself_the_network(write, photo, tmp_path):
    write([row(photo())])
    text = (tmp_path / "page" / "gallery.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:;" in text


@pytest.mark.parametrize(
    "name",
    [
        "</script><script>alert(1)</script>.jpg",
        "<!--.jpg",
        "javascript:alert(1).jpg",
        '"); alert(1); ("',
        "line\u2028end\n.jpg",
        "not-\udcff-utf8.jpg",
    ],
)
def test_no_name_gets_out_of_its_string(write, name):
    plain = len(write([row("plain.jpg")]).scripts)
    page = write([row(name)])
    assert len(page.scripts) == plain
    (found,) = page.pushed("photos")
    assert not found["href"].lower().startswith("javascript:")
    assert unquote_to_bytes(found["href"]).endswith(os.fsencode(name))


def test_failures_and_vanished_photos(write, tmp_path):
    failed = Prediction(path="x.jpg", status="error", error=ErrorInfo("empty", "the file is empty"))
    page = write([make_row(failed, "b"), row(tmp_path / "gone.jpg")])
    assert page.pushed("errors") == [{"path": "x.jpg", "code": "empty", "message": "the file is empty"}]
    assert page.pushed("photos")[0]["thumb"] is None


def test_many_photos_are_written_in_order_and_in_pieces(write, photo):
    path = photo(size=(8, 8))
    page = write(row(path, confidence=number / 1000) for number in range(450))
    assert [p["confidence"] for p in page.pushed("photos")] == [number / 1000 for number in range(450)]
    assert max(script.count("photos.push(") for script in page.scripts) == 200


def test_it_appears_when_it_is_complete(write, photo, tmp_path):
    def interrupted():
        yield row(photo())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted())
    assert not (tmp_path / "page" / "gallery.html").exists()


def test_a_folder_that_does_not_exist(tmp_path, tiny_bundle):
    tree = Bundle.load(tiny_bundle).tree
    with pytest.raises(OutputError, match="cannot be written"):
        write_gallery(tmp_path / "no" / "g.html", [], tree, "b", max_pixels=1, workers=1)
