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

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "models" / "default" / "golden"
CASCADE = [sys.executable, "-m", "cascade"]


def photos(folder: Path) -> None:
    """Put photos that may be shown into a folder: those of the bundle, cut into several each."""
    folder.mkdir()
    for path in sorted(GOLDEN.glob("*.png")):
        if path.name.count(".") > 1 or "_" in path.stem:
            continue
        with Image.open(path) as image:
            image.convert("RGB").save(folder / f"{path.stem}.jpg", quality=90)
            width, height = image.size
            for number, box in enumerate(((0, 0, 0.8, 0.8), (0.2, 0.2, 1, 1), (0.2, 0, 1, 0.8)), 2):
                left, top, right, bottom = (int(b * s) for b, s in zip(box, (width, height) * 2, strict=True))
                part = image.convert("RGB").crop((left, top, right, bottom))
                part.save(folder / f"{path.stem}-{number}.jpg", quality=90)


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
        # None of the doubtful ones is a place: "unknown" is right, every label is wrong.
        page.keyboard.press("Space" if "unknown" in answer else "x")
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
