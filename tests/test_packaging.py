"""What is inside the wheel, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("build") is None or importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs build and hatchling: pip install build hatchling")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_and_the_bundle(wheel: Path, shipped_bundle: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cascade").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {
        f"cascade/models/default/{path.relative_to(shipped_bundle).as_posix()}"
        for path in shipped_bundle.rglob("*")
        if path.is_file()
    }
    recipes = {f"cascade/experts/{path.name}" for path in (ROOT / "experts").glob("*.toml")}
    assert recipes
    assert names == tracked | shipped | recipes
    assert {name.split("/")[0] for name in names} == {"cascade"}


def test_the_bundle_in_the_wheel_has_known_files_only(shipped_bundle: Path) -> None:
    kinds = {path.suffix for path in shipped_bundle.rglob("*") if path.is_file()}
    assert kinds <= {".onnx", ".json", ".md", ".png", ".jpg", ".npz"}


def test_the_wheel_is_small_enough(wheel: Path) -> None:
    assert wheel.stat().st_size <= 45e6


def test_the_wheel_needs_only_light_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    plain = [ln.split(":", 1)[1] for ln in lines if ln.startswith("Requires-Dist") and "extra ==" not in ln]
    names = {requirement.strip().split(">")[0].split("<")[0] for requirement in plain}
    assert names == {"click", "msgspec", "numpy", "onnxruntime", "pillow", "platformdirs", "rich"}
