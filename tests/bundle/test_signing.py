"""A signature holds for exactly the files that were signed, and the list of files names what was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("model_signing", reason="needs model-signing: pip install 'cascade-vision[sign]'")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cascade import Bundle
from cascade.bundle.files import changed_files, file_hashes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Run = Callable[..., Any]


def _key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    encoding = serialization.Encoding.PEM
    private.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def small_bundle() -> Path:
    """A small bundle: a signature is about files, whatever they hold."""
    folder = Path(__file__).resolve().parents[2] / "models" / "vehicles"
    if not (folder / "bundle.json").is_file():
        pytest.skip("models/vehicles holds no bundle in this checkout")
    return folder


@pytest.fixture
def signed(run_cli: Run, small_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    folder = shutil.copytree(small_bundle, tmp_path / "bundle")
    private, public = _key_pair(tmp_path, "owner")
    ran = run_cli("export", "--bundle", folder, "--sign", private)
    assert ran.code == 0, ran.err
    assert (folder / "model.sig").is_file()
    return folder, public


def test_a_signed_bundle_is_verified(run_cli: Run, signed: tuple[Path, Path]) -> None:
    folder, public = signed
    ran = run_cli("verify", "--bundle", folder, "--key", public)
    assert ran.code == 0, ran.err
    assert "signed by the holder of the key" in ran.out


@pytest.mark.parametrize("how", ["changed", "added", "removed", "renamed"])
def test_tampering_is_found(run_cli: Run, signed: tuple[Path, Path], how: str) -> None:
    folder, public = signed
    if how == "changed":
        manifest = json.loads((folder / "bundle.json").read_text())
        manifest["operating_points"]["default"]["leaf_threshold"] = 0.01
        (folder / "bundle.json").write_text(json.dumps(manifest))
    elif how == "added":
        (folder / "more.txt").write_text("")
    elif how == "removed":
        (folder / "metrics.json").unlink()
    else:
        (folder / "metrics.json").rename(folder / "measured.json")
    ran = run_cli("verify", "--bundle", folder, "--key", public)
    assert ran.code == 2
    assert "the signature does not hold" in ran.err


def test_another_key_is_not_enough(run_cli: Run, signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = signed
    _, stranger = _key_pair(tmp_path, "stranger")
    assert run_cli("verify", "--bundle", folder, "--key", stranger).code == 2


def test_no_signature_and_no_key_are_told(run_cli: Run, signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, public = signed
    (folder / "model.sig").unlink()
    assert "is not signed" in run_cli("verify", "--bundle", folder, "--key", public).err
    (tmp_path / "nonsense.pem").write_text("nonsense")
    assert "PEM" in run_cli("export", "--bundle", folder, "--sign", tmp_path / "nonsense.pem").err


@pytest.fixture
def listed(small_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose manifest has the list of its files."""
    folder = shutil.copytree(small_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"] = file_hashes(folder)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_the_list_of_files_names_what_is_wrong(listed: Path) -> None:
    bundle = Bundle.load(listed)
    assert changed_files(bundle) == []
    (listed / "odd.txt").write_text("")
    assert changed_files(bundle) == ["odd.txt: does not belong to the bundle"]
    (listed / "odd.txt").unlink()
    policy = (listed / "POLICY.md").read_text()
    (listed / "POLICY.md").unlink()
    assert changed_files(bundle) == ["POLICY.md: is missing"]
    (listed / "POLICY.md").write_text(policy + "another line")
    assert changed_files(bundle) == ["POLICY.md: was changed"]


def test_verify_shows_what_is_wrong(run_cli: Run, listed: Path) -> None:
    (listed / "POLICY.md").write_text("another policy")
    ran = run_cli("verify", "--bundle", listed)
    assert ran.code == 1
    assert "POLICY.md: was changed" in ran.out
