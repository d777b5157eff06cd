"""The light install pulls no torch: every runtime module and every command works with nothing importable but
the libraries of pyproject.toml and what they need themselves. Each check runs in a process of its own,
in which an import hook refuses everything else, installed or not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cascade

PACKAGE = Path(cascade.__file__).parent
PYPROJECT = PACKAGE.parent / "pyproject.toml"
COFFEE = Path(__file__).parent / "data" / "coffee.jpg"

#: Distribution -> what it is imported as.
LIGHT = {
    "click": "click",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "pillow": "PIL",
    "platformdirs": "platformdirs",
    "rich": "rich",
}
#: What those need themselves.
THEIRS = [
    "colorama", "coloredlogs", "flatbuffers", "google", "humanfriendly", "markdown_it", "mdurl", "mpmath",
    "packaging", "pygments", "sympy", "typing_extensions",
]  # fmt: skip
#: Modules that only a command with an extra imports, and the library that they need.
EXTRA_MODULES = {"cascade.evaluation.report.plots": "matplotlib"} | {
    f"cascade.serving.{name}": library
    for library, names in {
        "starlette": ("app", "bodies", "classify_route", "guard", "inference_routes", "problems", "service"),
        "uvicorn": ("server",),
        "prometheus_client": ("metrics",),
    }.items()
    for name in names
}
EXTRA_MODULES |= {"cascade.review.routes": "anyio"}
EXTRA_MODULES |= {f"cascade.export.{name}": "onnx" for name in ("layouts", "nodes", "pixels", "single_file")}

HOOK = """
import sys

class OnlyLight:
    allowed = {allowed!r}

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in self.allowed or top in sys.stdlib_module_names or top.startswith("__editable__"):
            return None
        raise ModuleNotFoundError(f"BLOCKED {{name}}", name=name)

sys.meta_path.insert(0, OnlyLight())
"""


def run_light(
    code: str, *, allowed: list[str] | None = None, path: Path = PACKAGE.parent
) -> subprocess.CompletedProcess[str]:
    """Run code where only `allowed` and the standard library can be imported; `path` comes first."""
    names = ["cascade", *LIGHT.values(), *THEIRS] if allowed is None else allowed
    environment = {**os.environ, "PYTHONPATH": str(path), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-P", "-c", HOOK.format(allowed=sorted(names)) + code],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def runtime_modules() -> list[str]:
    names = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if "training" not in parts and name not in EXTRA_MODULES:
            names.append(name)
    return names


def import_all(modules: list[str]) -> str:
    return f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint('imported')"


#: platformdirs is imported where it is needed, which takes longer than most imports and most runs do not.
ASK_FOR_CACHE = (
    "\nimport os\nos.environ.pop('CASCADE_CACHE', None)\nimport cascade.cache\ncascade.cache.folders()"
)


def test_every_runtime_module_is_imported_without_extras() -> None:
    modules = runtime_modules()
    assert len(modules) > 20
    assert {"cascade.imaging.decoding", "cascade.classifier", "cascade.cli.train"} <= set(modules)
    result = run_light(import_all(modules))
    assert result.stdout == "imported\n", result.stderr


@pytest.mark.parametrize(("module", "library"), EXTRA_MODULES.items())
def test_modules_with_extras_do_need_them(module: str, library: str) -> None:
    assert f"BLOCKED {library}" in run_light(import_all([module])).stderr


@pytest.mark.parametrize("missing", LIGHT.values())
def test_the_check_notices_what_is_missing(missing: str) -> None:
    # Proof that the hook blocks: without any one of them, the same imports fail.
    allowed = ["cascade", *(set(LIGHT.values()) - {missing}), *THEIRS]
    result = run_light(import_all(runtime_modules()) + ASK_FOR_CACHE, allowed=allowed)
    assert result.returncode != 0
    assert f"BLOCKED {missing}" in result.stderr


@pytest.mark.parametrize("library", ["torch", "timm", "onnx", "sklearn", "matplotlib", "pillow_heif"])
def test_the_check_notices_a_planted_import(tmp_path: Path, library: str) -> None:
    copy = tmp_path / "cascade"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("training", "__pycache__"))
    modules = ["cascade.imaging.decoding", "cascade.policy"]
    assert run_light(import_all(modules), path=tmp_path).stdout == "imported\n"
    with (copy / "policy.py").open("a", encoding="utf-8") as policy:
        policy.write(f"\nimport {library}\n")
    assert f"BLOCKED {library}" in run_light(import_all(modules), path=tmp_path).stderr


def test_the_list_of_libraries_is_that_of_the_project() -> None:
    if not PYPROJECT.is_file():
        pytest.skip("the tests run on an installed wheel")
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower() for requirement in project["dependencies"]}
    assert names == set(LIGHT)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_light(f"from cascade.cli.main import main\nsys.argv[1:] = {list(arguments)!r}\nmain()")


def test_help_of_every_command() -> None:
    result = command("--help")
    assert result.returncode == 0, result.stderr
    names = re.findall(r"^  ([a-z]+) {2,}\S", result.stdout[result.stdout.index("Commands:") :], re.MULTILINE)
    assert {"classify", "info", "demo", "train", "evaluate"} <= set(names)
    for name in names:
        result = command(name, "--help")
        assert result.returncode == 0, result.stderr
        assert "Usage:" in result.stdout


def test_a_photo_is_classified_without_extras(tiny_bundle: Path) -> None:
    result = command("classify", str(COFFEE), "--bundle", str(tiny_bundle), "--format", "jsonl")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    photos = [row for row in rows if row.get("path", "").endswith("coffee.jpg")]
    assert [row["status"] for row in photos] == ["ok"]
    assert "BLOCKED" not in result.stderr


def test_training_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    result = command("train", str(tmp_path), "--out", str(tmp_path / "bundle"))
    assert result.returncode == 2
    assert "pip install 'cascade-vision[train]'" in result.stderr
    assert "Traceback" not in result.stderr
