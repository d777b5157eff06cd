"""Notes are kept where the user's caches are; without a home, or without a right to write, nothing fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cascade
from cascade import Bundle, cache

ROOT = Path(cascade.__file__).parents[1]
STRANGER = 54321  # a number that no user here has
#: Becomes the stranger once everything is imported: the interpreter may be where only its owner can read.
CODE = """
import os, sys
import platformdirs.unix
import cascade.cli.classify
from cascade import Cascade
from cascade.cli.main import main
bundle, photo, stranger = sys.argv[1], sys.argv[2], int(sys.argv[3])
Cascade(bundle, variant="exact").predict(photo)
os.setgroups([])
os.setgid(stranger)
os.setuid(stranger)
main(["classify", photo, "--bundle", bundle, "-f", "jsonl"])
"""
needs_users = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, and no word about where caches are."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("CASCADE_CACHE")
    return tmp_path / "tmp"


def test_the_folder_is_the_one_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_CACHE", str(tmp_path / "asked"))
    assert cache.folders()[0] == tmp_path / "asked"
    assert cache.read_note("a.json") is None
    assert cache.is_writable()
    assert cache.write_note("a.json", "x")
    assert (tmp_path / "asked" / "a.json").read_text() == cache.read_note("a.json") == "x"
    assert [path.name for path in (tmp_path / "asked").iterdir()] == ["a.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_the_folder_is_where_the_system_wants_caches(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folders()[0] == tmp_path / "xdg" / "cascade"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folders()[0] == tmp_path / "home" / ".cache" / "cascade"


@pytest.mark.parametrize(
    "told", ["~/.cache/cascade", RuntimeError("no home")]
)  # older and newer platformdirs
def test_without_a_home_notes_are_temporary(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, told: object
) -> None:
    def place(*_: object, **__: object) -> Path:
        if isinstance(told, Exception):
            raise told
        return Path(str(told))

    monkeypatch.setattr("platformdirs.user_cache_path", place)
    assert cache.write_note("a/b.json", "x")
    (folder,) = temporary.iterdir()
    assert (folder / "a" / "b.json").read_text() == cache.read_note("a/b.json") == "x"


def test_a_folder_that_cannot_be_made_gives_way_to_a_temporary_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / "file").write_text("no folder")
    monkeypatch.setenv("CASCADE_CACHE", str(temporary / "file" / "cache"))
    assert cache.is_writable()
    assert cache.write_note("a.json", "x")
    assert cache.read_note("a.json") == "x"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the temporary folder belongs to one user")
@pytest.mark.parametrize("plant", ["foreign", "open", "link"])
def test_what_others_may_have_planted_is_not_believed(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: str
) -> None:
    monkeypatch.setenv("CASCADE_CACHE", "/dev/null/cache")
    folder = cache.folders()[1]
    if plant == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if plant == "open":
        folder.chmod(0o777)
    (folder / "a.json").write_text("planted")
    if plant == "foreign":
        owner = os.getuid() + 1
        monkeypatch.setattr("os.getuid", lambda: owner)
        folder.rename(cache.folders()[1])
    assert cache.read_note("a.json") is None
    assert not cache.is_writable()
    assert not cache.write_note("a.json", "x")


@needs_users
@pytest.mark.parametrize("home", [None, "/", "/nonexistent"])
def test_an_unknown_user_without_a_home_classifies_and_remembers(
    shipped_bundle: Path, tmp_path: Path, home: str | None, photo: Callable[..., Path]
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    image = photo()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")} | ({"HOME": home} if home else {})
    ran = subprocess.run(
        [sys.executable, "-c", CODE, str(shipped_bundle), str(image), str(STRANGER)],
        env=kept | places,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout.splitlines()[-1])["status"] == "ok"
    (folder,) = (tmp_path / "tmp").iterdir()
    assert (folder.name, folder.stat().st_uid) == (f"cascade-cache-{STRANGER}", STRANGER)
    (note,) = (folder / "variants").iterdir()
    assert json.loads(note.read_text())["variant"] in Bundle.load(shipped_bundle).variants
