"""`cascade.runs.gallery`: pages that hold everything and fetch nothing, whatever photos are called."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import os
import re
import tracemalloc
from itertools import repeat
from urllib.parse import unquote, unquote_to_bytes

import pytest
from PIL import Image

from cascade import Bundle, ErrorInfo, Opinion, Prediction
from cascade.errors import OutputError
from cascade.ownership import is_marked
from cascade.runs.gallery.plan import Group, Part, pages_folder, plan_pages
from cascade.runs.gallery.write import write_gallery
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

    def about(self) -> dict:
        return json.loads(re.search(r"const about = (.*);", "".join(self.scripts))[1])

    def pushed(self, name: str) -> list[dict]:
        lines = "".join(self.scripts).splitlines()
        return [json.loads(m[1]) for line in lines if (m := re.fullmatch(rf"{name}\.push\((.*)\);", line))]


def row(path, label="beach", **more):
    given = {"parent": "outdoor", "confidence": 0.8, "reason": "leaf", "top": ((label, 0.8),)} | more
    return make_row(Prediction(path=os.fspath(path), label=label, **given), "b")


@pytest.fixture
def write(tmp_path, tiny_bundle):
    tree = Bundle.load(tiny_bundle).tree

    def call(rows, name="page/gallery.html", **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        more = {"max_pixels": 10_000_000, "workers": 2} | options
        pages = write_gallery(path, rows, tree, "tiny 1", **more)
        assert pages == len(list(pages_folder(path).glob("*.html")))
        return Page(path.read_text(encoding="utf-8"))

    return call


def test_photos_with_thumbnails_links_and_routes(write, photo):
    wide = photo("album/ä b#1.jpg", "beach", size=(800, 400))
    asked = (Opinion("rooms", "kitchen", 0.9), Opinion("nature", "beach", 0.5))
    rows = [row(wide), row(photo("album/c.png", "menu"), "unknown", reason="doubtful", experts=asked)]
    page = write(rows)
    second, first = page.pushed("photos")
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


def pages_of(index):
    return [Page(path.read_text(encoding="utf-8")) for path in sorted(pages_folder(index).glob("*.html"))]


def many(path, number=25):
    """Rows of three answers and of errors, mixed."""
    failed = Prediction(path="x.jpg", status="error", error=ErrorInfo("empty", "the file is empty"))
    for index in range(number):
        yield row(path, "beach", confidence=1 - index / 100)
        yield row(path, "bedroom", parent="indoor", confidence=index / 100)
        if index % 5 == 0:
            yield row(path, "unknown", parent=None, reason="doubtful", confidence=0.1)
            yield make_row(failed, "b")


def test_many_photos_get_an_index_and_pages(write, photo, tmp_path):
    index = write(many(photo(size=(8, 8))), page_size=10)
    groups = {group["label"]: group for group in index.pushed("groups")}
    counts = {label: group["count"] for label, group in groups.items()}
    assert counts == {"unknown": 5, "bedroom": 25, "beach": 25, None: 5}
    assert next(iter(groups)) == "unknown"
    assert list(groups)[-1] is None
    assert index.about()["folder"] == "gallery.html.pages"
    pages = pages_of(tmp_path / "page" / "gallery.html")
    for page in pages:
        assert 0 < len(page.pushed("photos")) + len(page.pushed("errors")) <= 10
    photos = [found for page in pages for found in page.pushed("photos")]
    assert [p["label"] for p in photos if p["label"] != "unknown"] == [
        label for label in groups if label in ("bedroom", "beach") for _ in range(25)
    ]
    for label in ("bedroom", "beach"):
        confidences = [p["confidence"] for p in photos if p["label"] == label]
        assert confidences == sorted(confidences)
    # What the index says of each page is what the page holds.
    for label, group in groups.items():
        for name, count in group["pages"]:
            page = pages[int(name.removesuffix(".html")) - 1]
            held = [e for e in page.pushed("photos") if e["label"] == label]
            assert count == len(held if label is not None else page.pushed("errors"))
        assert group["count"] == sum(count for _, count in group["pages"])


def test_pages_lead_to_the_index_their_neighbours_and_their_photos(write, photo, tmp_path):
    path = photo("album/ä b#1.jpg", size=(8, 8))
    write([row(path, confidence=n / 100) for n in range(25)], name="page/my #1.html", page_size=10)
    first, middle, last = pages_of(tmp_path / "page" / "my #1.html")
    folder = tmp_path / "page" / "my #1.html.pages"
    about = middle.about()["pages"]
    assert (about["before"], about["after"]) == ("0001.html", "0003.html")
    assert (folder / unquote(about["index"])).resolve() == tmp_path / "page" / "my #1.html"
    assert "#" not in about["index"]
    assert first.about()["pages"]["before"] is None
    assert last.about()["pages"]["after"] is None
    for found in (page.pushed("photos")[0] for page in (first, middle, last)):
        assert (folder / unquote(found["href"])).resolve() == path.resolve()
        assert found["thumb"]


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--", '"); alert(1); ("'])
def test_no_label_gets_out_of_its_string_in_the_index(write, photo, name):
    path = photo(size=(8, 8))
    plain = len(write([row(path), row(path)], page_size=1).scripts)
    index = write([row(path, name), row(path)], page_size=1)
    assert len(index.scripts) == plain
    assert name in [group["label"] for group in index.pushed("groups")]
    assert index.addresses == []


def test_the_index_forbids_itself_everything(write, photo, tmp_path):
    path = photo(size=(8, 8))
    write([row(path), row(path)], page_size=1)
    index = tmp_path / "page" / "gallery.html"
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src" in index.read_text()
    for file in (index, *pages_folder(index).iterdir()):
        assert is_marked(file)
        assert not re.search(r"https?://|import\s|fetch\(|XMLHttpRequest", file.read_text())


def test_a_second_gallery_takes_the_place_of_the_first(write, photo, tmp_path):
    path = photo(size=(8, 8))
    index = tmp_path / "page" / "gallery.html"
    write([row(path)] * 9, page_size=2)
    assert len(pages_of(index)) == 5
    write([row(path)] * 3, page_size=2)
    assert len(pages_of(index)) == 2
    assert len(write([row(path)] * 3).pushed("photos")) == 3
    assert [p.name for p in index.parent.iterdir()] == ["gallery.html"]


@pytest.mark.parametrize("number", [1, 9])
def test_pages_of_somebody_else_stay(write, photo, tmp_path, number):
    path = photo(size=(8, 8))
    folder = tmp_path / "page" / "gallery.html.pages"
    folder.mkdir(parents=True)
    (folder / "0001.html").write_text("<!doctype html>mine")
    with pytest.raises(OutputError, match=r"holds 0001\.html, which cascade did not write"):
        write([row(path)] * number, page_size=2)
    assert [p.name for p in folder.iterdir()] == ["0001.html"]
    assert (folder / "0001.html").read_text() == "<!doctype html>mine"
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".cascade")]


def test_an_interrupted_gallery_leaves_no_pages(write, photo, tmp_path):
    path = photo(size=(8, 8))
    seen = []

    def advance():
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write([row(path)] * 9, page_size=2, advance=advance)
    assert list((tmp_path / "page").iterdir()) == []


def test_pages_are_planned_in_order_and_full_ones_are_divided_evenly():
    beach, rooms, few, none = (
        Group("beach", "o", 7),
        Group("room", "i", 25),
        Group("hut", "o", 2),
        Group(None, None, 1),
    )
    assert plan_pages([beach, few, rooms, none], 10) == [
        [Part(beach, 7), Part(few, 2)],
        [Part(rooms, 9)],
        [Part(rooms, 8)],
        [Part(rooms, 8), Part(none, 1)],
    ]
    assert plan_pages([], 10) == [[]]


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path, tiny_bundle):
    """Photos that are gone, so that only what is kept of each row counts."""
    tree = Bundle.load(tiny_bundle).tree
    one = row(tmp_path / "gone.jpg")

    def peak(number):
        tracemalloc.start()
        path = tmp_path / "gallery.html"
        write_gallery(path, repeat(one, number), tree, "b", max_pixels=1, workers=1, page_size=100)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(300)
    small = peak(1000)
    assert peak(10_000) < small + 500_000
