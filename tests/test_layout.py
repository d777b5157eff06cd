"""The shape of the code: which package knows which, how long things are, what ARCHITECTURE.md says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cascade"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "models" not in path.parts)
LONGEST_MODULE = 300
LONGEST_FUNCTION = 60


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_no_package_knows_a_package_above_it() -> None:
    pytest.importorskip("importlinter", reason="needs import-linter: pip install -e '.[dev]'")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_modules_are_short() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = {module: length for module, length in lengths.items() if length > LONGEST_MODULE}
    assert long == {}


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long[f"{name(path)}:{node.name}"] = length
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    empty = [name(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert empty == ["__main__.py"] or empty == []


#: Public methods of named tuples, in spite of their names.
NAMED_TUPLES = {"_asdict", "_replace", "_fields", "_make"}


def is_private(word: str) -> bool:
    return word.startswith("_") and not word.startswith("__") and word not in NAMED_TUPLES


def private_names(tree: ast.AST) -> set[str]:
    """Names with an underscore that are imported, reached as an attribute, or replaced by monkeypatch."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("setattr", "getattr", "delattr")
        ):
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found |= {word for word in words if is_private(word.rpartition(".")[2])}
    return found


def test_tests_and_benchmarks_use_public_names_only() -> None:
    paths = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    trees = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    found = {name: private_names(tree) for name, tree in trees.items()}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    ["from a import _b", "a._b()", "patch.setattr(a, '_b', 1)", "patch.setattr('a._b', 1)", "a.b._c = 1"],
)
def test_private_names_are_seen(code: str) -> None:
    assert private_names(ast.parse(code))
    assert not private_names(ast.parse(code.replace("_b", "b").replace("_c", "c")))


def test_architecture_names_every_package_and_only_what_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = {
        match[1]: set(re.findall(r"`([a-z_]+/?)`", match[2]))
        for match in re.finditer(r"^\| `([a-z_]+)/?` \| (.*) \|$", text, flags=re.M)
    }
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert table.keys() - {"cascade"} == folders
    for package, named in table.items():
        home = PACKAGE if package == "cascade" else PACKAGE / package
        there = {path.stem for path in home.glob("*.py")} | {f"{path.name}/" for path in home.iterdir()}
        assert named - there == set(), f"{package}: named in ARCHITECTURE.md and not there"
        if package not in ("cli", "training", "cascade"):
            unnamed = {path.stem for path in home.glob("*.py")} - named - {"__init__"}
            assert unnamed == set(), f"{package}: there and not named in ARCHITECTURE.md"
