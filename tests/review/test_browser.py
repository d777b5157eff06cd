"""The page in a real browser: look, filter, correct, undo, reload, export. Skips without Chromium."""

from __future__ import annotations

import csv
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the page is tested with: pip install playwright"
)
CHROMIUM = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium or google-chrome here; Debian: apt-get install chromium"
    ),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Open a page that may talk to its own service only, and that may say nothing on the console."""
    contexts, complaints = [], []

    def begin(url, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        home = url.split("#")[0].rstrip("/")

        def check(request):
            if not request.url.startswith((home, "blob:", "data:")):
                complaints.append(f"asked elsewhere: {request.url}")

        page.on("request", check)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        # 404 of the photo that cannot be read and 422 of a bad upload are logged by the browser itself.
        page.on(
            "console",
            lambda said: (
                said.type == "error"
                and "status of 4" not in said.text
                # Services stop before their pages close, and a test stops one on purpose.
                and not any(gone in said.text for gone in ("CONNECTION_REFUSED", "CONNECTION_RESET"))
                and complaints.append(said.text)
            ),
        )
        page.goto(url)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield begin
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def review(start_review, run_copy):
    return start_review(run_copy)


def wait_for(page, expression, arg=None):
    """Wait until JavaScript gives true. Playwright's own way would need eval, which the policy forbids."""
    end = time.monotonic() + 20
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, f"never true: {expression}; figures: {figures(page)}"
        page.wait_for_timeout(30)


def figures(page):
    return page.inner_text("#figures")


def wait_for_figures(page, text):
    wait_for(page, "text => document.getElementById('figures').innerText.includes(text)", arg=text)


def current(page):
    """The tile that is selected: (path, what is said about it)."""
    page.wait_for_selector(".tile[aria-selected=true][aria-label]", state="attached")
    return page.get_attribute(".tile[aria-selected=true]", "aria-label")


def test_try_photos(open_page, review, run_file):
    page = open_page(f"{review.url}/#try")
    photos = [str(run_file.parent / "photos" / name) for name in ("00.png", "06.png", "bad.png")]
    page.set_input_files("#files", photos)
    wait_for(page, "document.querySelectorAll('.card .answer').length === 3")
    wait_for(page, "![...document.querySelectorAll('.card .answer')].some(a => a.innerText === '…')")
    cards = page.locator(".card")
    bad, unknown, sure = (cards.nth(n).inner_text() for n in range(3))
    assert "bedroom" in sure
    assert "general" in sure
    assert re.search(r"\d+ ms", sure)
    assert "unknown" in unknown
    assert "sure enough" in unknown
    assert "not an image" in bad


def test_filter_correct_undo_reload_export(open_page, review, run_copy):
    page = open_page(f"{review.url}/#review")
    assert "0 of 40 reviewed" in figures(page)
    page.select_option("select[name=label]", "menu")
    wait_for(page, "!document.getElementById('shown').innerText.startsWith('40 ')")
    assert "menu" in current(page)
    page.focus("#grid")
    page.keyboard.press("Space")  # accept
    wait_for_figures(page, "1 of 40 reviewed")
    page.keyboard.press("Enter")  # one large photo
    page.wait_for_selector("#single[open]")
    page.keyboard.press("f")  # forest
    wait_for_figures(page, "2 of 40 reviewed, 1 wrong")
    page.keyboard.press("x")  # not a place we know
    wait_for_figures(page, "3 of 40 reviewed, 2 wrong")
    page.keyboard.press("2")  # the second best guess
    wait_for_figures(page, "4 of 40 reviewed, 3 wrong")
    assert "right answers" in figures(page)
    page.keyboard.press("Space")  # accept, also in the large view
    wait_for_figures(page, "5 of 40 reviewed, 3 wrong")
    page.keyboard.press("u")
    wait_for_figures(page, "4 of 40 reviewed, 3 wrong")
    page.click("#do-previous")
    page.click("#do-next")  # with the mouse; keys still mean the photo
    page.keyboard.press("u")
    wait_for_figures(page, "3 of 40 reviewed, 2 wrong")
    page.keyboard.press("u")
    wait_for_figures(page, "2 of 40 reviewed, 1 wrong")
    page.keyboard.press("/")
    page.keyboard.type("beac")
    page.keyboard.press("Enter")
    wait_for_figures(page, "3 of 40 reviewed, 2 wrong")
    page.keyboard.press("Escape")
    page.wait_for_selector("#single", state="hidden")
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert "3 of 40 reviewed, 2 wrong" in figures(page)
    assert page.input_value("select[name=label]") == "menu"  # the filters are still those of before
    with page.expect_download() as download:
        page.click("text=Corrections as CSV")
    with Path(download.value.path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["label"] for row in rows) == ["beach", "forest", "menu"]
    assert {row["previous"] for row in rows} == {"menu"}
    page.click("text=Write folders")
    wait_for(page, "document.getElementById('message').innerText.includes('sorted 3')")
    written = run_copy.with_name("answers.jsonl.reviewed")
    assert sorted(folder.name for folder in written.iterdir() if folder.is_dir()) == [
        "beach",
        "forest",
        "menu",
    ]


def test_undo_works_after_the_service_was_restarted(open_page, start_review, run_copy):
    first = start_review(run_copy)
    page = open_page(f"{first.url}/#review")
    page.fill("#reviewer", "ann")
    page.focus("#grid")
    page.keyboard.press("Space")
    wait_for_figures(page, "1 of 40 reviewed")
    first.stop()
    second = start_review(run_copy)
    page = open_page(f"{second.url}/#review")
    assert "1 of 40 reviewed" in figures(page)
    page.fill("#reviewer", "ann")
    page.focus("#grid")
    page.keyboard.press("u")
    wait_for_figures(page, "0 of 40 reviewed")


def test_two_people_at_once(open_page, review):
    ann, bob = (open_page(f"{review.url}/#review") for _ in range(2))
    for page, name in ((ann, "ann"), (bob, "bob")):
        page.fill("#reviewer", name)
        page.focus("#grid")
    photo = current(bob).split(":")[0]
    ann.keyboard.press("f")
    wait_for_figures(ann, "1 of 40 reviewed")
    bob.keyboard.press("b")  # has not seen it
    wait_for(bob, "document.getElementById('message').innerText.includes('somebody was faster')")
    assert "forest" in current(bob)
    assert current(bob).startswith(photo)
    bob.keyboard.press("b")  # now he has
    wait_for(bob, "!document.getElementById('message').innerText.includes('faster')")
    # and ann is told without a reload
    wait_for(ann, "!!document.querySelector('.tile.corrected, .tile.accepted')")
    wait_for(
        ann,
        "path => [...document.querySelectorAll('.tile')].some(t => t.ariaLabel?.startsWith(path)"
        " && !t.ariaLabel.includes('→ forest') && t.ariaLabel.match(/[→✓]/))",
        arg=photo,
    )


def test_accepting_what_is_sure_and_taking_it_back(open_page, review):
    page = open_page(f"{review.url}/#review")
    page.fill("input[name=confidence]", "0.9")
    page.click("text=Accept what is shown")
    wait_for(page, "document.getElementById('message').innerText.includes('accepted;')")
    assert not figures(page).startswith("0 of 40")
    page.focus("#grid")
    page.keyboard.press("u")
    wait_for_figures(page, "0 of 40 reviewed")


def test_keyboard_alone_reaches_everything(open_page, review):
    page = open_page(f"{review.url}/#review")
    page.keyboard.press("Home")
    first = current(page)
    page.keyboard.press("ArrowRight")
    assert current(page) != first
    page.keyboard.press("End")
    assert "bad.png" in current(page)  # what has no answer comes last
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("Escape")
    names = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.name || document.activeElement.id"))
    assert {"text", "order", "state", "label", "confidence", "reviewer", "folders", "grid"} <= names
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select, a')].filter(e => e.checkVisibility()
        && !(e.innerText || e.ariaLabel || e.labels?.length || e.title)).map(e => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_width_of_a_phone(open_page, review, scheme):
    page = open_page(f"{review.url}/#review", viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.wait_for_selector(".tile[aria-label]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".tile").first.click()
    page.wait_for_selector("#single[open]")
    wait_for(page, "document.getElementById('single-answer').innerText.length > 0")
    assert page.evaluate("document.getElementById('single').scrollWidth") <= 390
    # WCAG 2.2, 1.4.3: text has a contrast of at least 4.5 to what is behind it.
    low = page.evaluate((Path(__file__).parent / "contrast.js").read_text())
    assert low == []
    page.click("#do-accept")
    wait_for_figures(page, "1 of 40 reviewed")


def test_a_token_is_asked_for_once(browser, start_review, run_copy, tmp_path):
    (tmp_path / "token").write_text("a-token-of-some-length")
    review = start_review(run_copy, "--token-file", str(tmp_path / "token"))
    page = browser.new_context().new_page()
    page.goto(f"{review.url}/#review")
    page.wait_for_selector("#ask-token[open]")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    wait_for(page, "document.getElementById('token-wrong').innerText.length > 0")
    page.fill("#token", "a-token-of-some-length")
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-ready=yes]")
    wait_for_figures(page, "0 of 40 reviewed")
    wait_for(page, "[...document.querySelectorAll('.tile img')].some(i => i.naturalWidth > 0)")
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert not page.is_visible("#ask-token")
    page.context.close()
