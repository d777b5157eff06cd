"""cascade stays off the network: onnxruntime's telemetry is off however cascade is started."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cascade
from cascade.onnx_runtime import ort

ROOT = Path(cascade.__file__).parents[1]
API = (
    "import sys, time\nfrom cascade import Cascade\nCascade(sys.argv[1]).predict(sys.argv[2])\ntime.sleep(2)"
)
WAYS = {
    "command": ["-m", "cascade", "classify", "{photo}", "--bundle", "{bundle}"],
    "api": ["-c", API, "{bundle}", "{photo}"],
}


def environment(home: Path, **more: str) -> dict[str, str]:
    """A fresh user: an empty home, and nothing set (CI does, too) that would switch telemetry off."""
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME", "CASCADE_CACHE"}
    }
    places = {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    return kept | places | {"PYTHONPATH": str(ROOT)} | more


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def foreign_files(home: Path) -> list[str]:
    """What lies in a home that cascade did not put there."""
    return [name for name in files_below(home) if not name.startswith(".cache/cascade/")]


def internet_sockets(trace: Path) -> list[str]:
    """The sockets of the internet that a traced process opened."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [line for line in lines if "socket(AF_INET" in line]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_appears_in_a_fresh_home_and_no_socket_opens(way, shipped_bundle, photo, tmp_path):
    home, trace = tmp_path / "home", tmp_path / "trace"
    arguments = [one.format(photo=photo(), bundle=shipped_bundle) for one in WAYS[way]]
    watch = _strace(trace)
    subprocess.run([*watch, sys.executable, *arguments], env=environment(home), check=True, timeout=300)
    assert foreign_files(home) == []
    if not watch:
        pytest.skip("no file appeared; that no socket opens cannot be seen without strace")
    # A start tells of itself in the trace, or the next line proves nothing.
    assert "exited with 0" in trace.read_text()
    assert internet_sockets(trace) == []


#: The first onnxruntime that sends telemetry.
TELEMETRY_SINCE = (1, 31)


def test_the_harness_notices_telemetry(shipped_bundle, tmp_path):
    """onnxruntime alone, with the same graph, leaves files in a fresh home, so the test above can fail."""
    if tuple(map(int, ort.__version__.split(".")[:2])) < TELEMETRY_SINCE or sys.platform != "linux":
        pytest.skip("this onnxruntime sends no telemetry")
    home, graph = tmp_path / "home", shipped_bundle / "arbiter.onnx"
    code = "import sys, onnxruntime\nonnxruntime.InferenceSession(sys.argv[1])"
    command = [sys.executable, "-c", code, str(graph)]
    subprocess.run(command, env=environment(home), check=True, timeout=300)
    assert any("Microsoft" in name for name in files_below(home)), "the test above proves nothing"


def test_the_harness_notices_a_file_and_a_socket(tmp_path):
    """What telemetry does, done here: holds for every onnxruntime."""
    home, trace = tmp_path / "home", tmp_path / "trace"
    code = (
        "import pathlib, socket\n"
        "folder = pathlib.Path.home() / '.cache' / 'Other'\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'queue').touch()\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()"
    )
    watch = _strace(trace)
    subprocess.run([*watch, sys.executable, "-c", code], env=environment(home), check=True, timeout=300)
    assert foreign_files(home) == [".cache/Other/queue"]
    assert len(internet_sockets(trace)) == (1 if watch else 0)


@pytest.mark.parametrize(
    "module", ["cascade", "cascade.imaging.decoding", "cascade.training.export.quantize"]
)
def test_the_variable_is_set_before_onnxruntime_is_imported(module, tmp_path):
    if "training" in module:
        pytest.importorskip("onnx", reason="needs the extra `train`")
    code = (
        "import importlib, os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"importlib.import_module({module!r})"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, env=environment(tmp_path / "home"), capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["1"], done.stderr


def test_what_the_user_has_set_is_left_alone(tmp_path):
    code = "import os, cascade\nprint(os.environ['ORT_DISABLE_TELEMETRY'])"
    given = environment(tmp_path / "home", ORT_DISABLE_TELEMETRY="0")
    done = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["0"], done.stderr


def test_onnxruntime_is_imported_in_one_place():
    found = set()
    for folder in ("cascade", "benchmarks", "tests", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            if any(_imports_onnxruntime(node) for node in ast.walk(ast.parse(path.read_bytes()))):
                found.add(path.relative_to(ROOT).as_posix())
    # What MLflow runs is copied away and stands alone; it switches telemetry off before its import, too.
    alone = "cascade/export/mlflow_model.py"
    assert found == {"cascade/onnx_runtime.py", alone}
    text = (ROOT / alone).read_text(encoding="utf-8")
    assert 0 < text.index('"ORT_DISABLE_TELEMETRY", "1"') < text.index("import onnxruntime")


def _imports_onnxruntime(node: ast.AST) -> bool:
    """A submodule, onnxruntime.quantization, is no first import: cascade has imported the package before."""
    if isinstance(node, ast.Import):
        return any(alias.name == "onnxruntime" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and node.module == "onnxruntime"


def _strace(trace: Path) -> list[str]:
    """Return the command that writes every network call of a process to a file, if it works here."""
    command = ["strace", "-f", "-e", "trace=network", "-o", str(trace)]
    if shutil.which("strace") and subprocess.run([*command, "true"], check=False).returncode == 0:
        return command
    return []
