"""Makes docs/review.webp, the screenshot of the README, from the sample photos of `cascade demo`.

python docs/make_screenshot.py [--out docs/review.webp]
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from cascade.cli.demo import sample_photos

HERE = Path(__file__).resolve().parent
_PARTS = ((0, 0, 0.8, 0.8), (0.2, 0.2, 1, 1))
CASCADE = [sys.executable, "-m", "cascade"]


def photos(folder: Path) -> None:
    """Put photos that may be shown into a folder: the samples of `cascade demo`, and parts of them."""
    folder.mkdir()
    for path in sample_photos():
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.save(folder / f"{path.stem}.jpg", quality=90)
        for number, (left, top, right, bottom) in enumerate(_PARTS, 2):
            width, height = image.size
            box = (int(left * width), int(top * height), int(right * width), int(bottom * height))
            image.crop(box).save(folder / f"{path.stem}-{number}.jpg", quality=90)


def shoot(browser: Browser, url: str) -> bytes:
    """Review a little, and return the picture of the grid as PNG."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page.goto(f"{url}/#review")
    page.wait_for_selector("html[data-ready=yes]")
    page.fill("#reviewer", "ann")
    page.focus("#grid")
    for _ in range(6):
        page.wait_for_selector(".tile[aria-selected=true][aria-label]")
        answer = page.get_attribute(".tile[aria-selected=true]", "aria-label") or ""
        # The lake is outdoors; the other doubtful ones are no places, so "unknown" is right for them.
        page.keyboard.press("Space" if "unknown" in answer or "china" in answer else "x")
        page.wait_for_timeout(500)
    page.evaluate("document.getElementById('filters').scrollTop = 0")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)
    return page.screenshot()


def main() -> None:
    """Classify, open the page, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "review.webp")
    out = parser.parse_args().out
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        photos(home / "photos")
        subprocess.run([*CASCADE, "classify", "photos", "-o", "answers.jsonl", "-q"], cwd=home, check=False)
        log = home / "log"
        with log.open("wb") as file:
            command = [*CASCADE, "review", "answers.jsonl", "--port", "0", "--no-open"]
            process = subprocess.Popen(command, cwd=home, stderr=file)
        while not (found := re.search(r"on (http://\S+)/#review", log.read_text())):
            time.sleep(0.1)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            picture = shoot(browser, found[1])
        process.terminate()
        process.wait()
    Image.open(io.BytesIO(picture)).save(out, "WEBP", quality=80, method=6)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
