"""The programs of examples/ replay the golden files of the shipped bundle and answer as the package does.

Where a tool is missing they are skipped with a reason; with `CASCADE_ALL_EXAMPLES=1`, as in .ci/run, that
fails.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cascade import Cascade
from cascade.imaging.decoding import load_image

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def _need(here: bool, what: str) -> None:
    if not here:
        message = f"needs {what}"
        if os.environ.get("CASCADE_ALL_EXAMPLES"):
            pytest.fail(message)
        pytest.skip(message)


def _run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    _need(found is not None, "Node.js: .ci/system_packages")
    for module in ("onnxruntime-node", "sharp"):
        here = (EXAMPLES / "node" / "node_modules" / module).is_dir()
        _need(here, f"{module}: ONNXRUNTIME_NODE_INSTALL=skip npm install --prefix examples/node")
    return str(found)


@pytest.fixture(scope="module")
def damaged_bundle(shipped_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundle with one golden decision and one golden input changed."""
    home = shutil.copytree(shipped_bundle, tmp_path_factory.mktemp("damaged") / "bundle")
    path = home / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    golden["photos"][0]["probabilities_always"][0] += 0.5
    first = home / "golden" / golden["photos"][1]["prepared"]["general"]
    with Image.open(first) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(first)
    path.write_text(json.dumps(golden))
    return home


def _agrees(line: str, photo: Path, bundle: Path) -> None:
    said, expected = json.loads(line), Cascade(bundle, variant="exact").predict(photo)
    assert (said["label"], said["reason"]) == (expected.label, expected.reason)
    assert said["confidence"] == pytest.approx(expected.confidence, abs=0.01)


def test_python_replays_and_classifies(shipped_bundle: Path, damaged_bundle: Path, tmp_path: Path) -> None:
    program = EXAMPLES / "python" / "classify.py"
    done = _run(sys.executable, program, shipped_bundle, "--replay", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"problems": []}
    assert _run(sys.executable, program, damaged_bundle, "--replay", cwd=tmp_path).returncode == 1
    photo, text = shipped_bundle / "golden" / "coffee.png", tmp_path / "text.jpg"
    text.write_text("no photo")
    done = _run(sys.executable, program, shipped_bundle, photo, text, cwd=tmp_path)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    _agrees(first, photo, shipped_bundle)
    assert "error" in json.loads(second)


def test_node_replays_and_classifies(
    node: str, shipped_bundle: Path, damaged_bundle: Path, tmp_path: Path
) -> None:
    program = EXAMPLES / "node" / "classify.js"
    done = _run(node, program, shipped_bundle, "--replay")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["problems"] == []
    assert result["compared"] >= 40
    assert _run(node, program, damaged_bundle, "--replay").returncode == 1
    photo, text = shipped_bundle / "golden" / "coffee.png", tmp_path / "text.jpg"
    text.write_text("no photo")
    done = _run(node, program, shipped_bundle, photo, text)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    _agrees(first, photo, shipped_bundle)
    assert "error" in json.loads(second)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing on standard error."""


@pytest.fixture
def site(shipped_bundle: Path, tmp_path: Path) -> Iterator[str]:
    """The page with its bundle, and the single file, behind a plain file server."""
    here = (EXAMPLES / "web" / "node_modules" / "onnxruntime-web").is_dir()
    _need(here, "onnxruntime-web: npm install --prefix examples/web")
    for path in (EXAMPLES / "web").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "bundle").symlink_to(shipped_bundle)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    _need(chromium is not None, "Chromium: .ci/system_packages")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _need(False, "playwright: pip install playwright")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_the_page_replays_and_answers_and_asks_nobody_else(
    site: str, browser: Any, shipped_bundle: Path, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 900})
    asked, odd = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: odd.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: odd.append(str(error)))
    page.goto(f"{site}/index.html?replay")
    page.wait_for_selector("body[data-ready]", timeout=300_000)
    result = json.loads(page.locator("#status").inner_text())
    # Which picture a browser makes of CMYK is its own affair; EMBEDDING.md says to convert or to refuse it.
    assert [text for text in result["problems"] if not text.startswith("cmyk.jpg:")] == []
    assert result["compared"] >= 40
    # Offline from here on: everything is loaded.
    page.context.set_offline(True)
    text = tmp_path / "text.jpg"
    text.write_text("no photo")
    photo = shipped_bundle / "golden" / "coffee.png"
    page.set_input_files("#files", [str(photo), str(text)])
    page.wait_for_selector("#answers li:nth-child(2) h2", timeout=60_000)
    expected = Cascade(shipped_bundle, variant="exact").predict(photo)
    assert page.locator("#answers li:nth-child(2) h2").inner_text().startswith(expected.label)
    assert page.locator("#answers li:nth-child(2) .bar").count() == 5
    assert "cannot be read" in page.locator("#answers li:nth-child(1) .error").inner_text()
    page.screenshot(path=os.environ.get("CASCADE_SCREENSHOT", str(tmp_path / "page.png")), full_page=True)
    assert odd == []
    others = [url for url in asked if not url.startswith((site, "blob:", "data:"))]
    assert others == []


def test_the_single_file_runs_in_wasm(site: str, browser: Any, shipped_bundle: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'cascade-vision[export]'")
    from cascade import Bundle
    from cascade.export.single_file import single_file

    onnx.save(single_file(Bundle.load(shipped_bundle)), tmp_path / "cascade.onnx")
    page = browser.new_page()
    page.goto(f"{site}/page.css")  # any page of the same origin
    with Image.open(shipped_bundle / "golden" / "coffee.png") as image:
        pixels = image.convert("RGB")
    found = page.evaluate(
        """async ([site, width, height, data]) => {
            const dist = site + "/node_modules/onnxruntime-web/dist/";
            const ort = await import(dist + "ort.wasm.bundle.min.mjs");
            ort.env.wasm.wasmPaths = dist;
            ort.env.wasm.numThreads = 1;
            const session = await ort.InferenceSession.create(site + "/cascade.onnx");
            const image = new ort.Tensor("uint8", Uint8Array.from(data), [height, width, 3]);
            const out = await session.run({ image });
            return [Number(out.answer.data[0]), out.confidence.data[0]];
        }""",
        [site, pixels.width, pixels.height, list(pixels.tobytes())],
    )
    expected = Cascade(shipped_bundle, variant="exact").predict(shipped_bundle / "golden" / "coffee.png")
    bundle = Bundle.load(shipped_bundle)
    names = [*bundle.tree.labels, *bundle.tree.parents, "unknown"]
    assert names[found[0]] == expected.label
    assert found[1] == pytest.approx(expected.confidence, abs=3e-3)


def test_cpp_answers_as_the_package_does(shipped_bundle: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'cascade-vision[export]'")
    from cascade import Bundle
    from cascade.export.single_file import answers, single_file

    include = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))
    _need(shutil.which("c++") is not None, "a C++ compiler: .ci/system_packages")
    _need((include / "onnxruntime_cxx_api.h").is_file(), "onnxruntime's headers: .ci/system_packages")
    built = _run(EXAMPLES / "cpp" / "build", sys.executable, tmp_path / "classify")
    assert built.returncode == 0, built.stderr
    bundle = Bundle.load(shipped_bundle)
    onnx.save(single_file(bundle), tmp_path / "cascade.onnx")
    golden = json.loads((shipped_bundle / "golden" / "golden.json").read_text())["photos"]
    photos = []
    for entry in golden:
        photos.append(tmp_path / f"{entry['photo']}.ppm")
        load_image(shipped_bundle / "golden" / entry["photo"]).save(photos[-1])
    done = _run(tmp_path / "classify", tmp_path / "cascade.onnx", *photos)
    assert done.returncode == 0, done.stderr
    for line, entry in zip(done.stdout.splitlines(), golden, strict=True):
        said, wanted = json.loads(line), entry["decisions"]["router"]
        if wanted["margin"] > 0.01:
            assert answers(bundle)[said["answer"]] == wanted["label"], entry["photo"]
            assert said["confidence"] == pytest.approx(wanted["confidence"], abs=0.02)
    photos[0].write_bytes(b"P6 9 9 255 short")
    assert _run(tmp_path / "classify", tmp_path / "cascade.onnx", photos[0]).returncode == 1
