"""Keeps small notes between runs: in the folder for caches of the user, or else in a temporary one.

The folder is ``$CASCADE_CACHE`` if that is set, else the one that the system gives a user for caches. A user
without a home (an unknown number in a container) or with one that cannot be written has a folder of their own
under the temporary folder. Where nothing can be written, nothing is kept; that is never an error.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["CACHE_ENVIRONMENT_VARIABLE", "folders", "is_writable", "read_note", "write_note"]

CACHE_ENVIRONMENT_VARIABLE: Final = "CASCADE_CACHE"


def folders() -> tuple[Path, ...]:
    """Return the folders where notes are looked for and kept, best first; none of them need exist."""
    given = os.environ.get(CACHE_ENVIRONMENT_VARIABLE)
    first = Path(given) if given else _users_folder()
    return (_temporary_folder(),) if first is None else (first, _temporary_folder())


def read_note(name: str) -> str | None:
    """Return what was kept under a name, or None.

    Args:
        name: relative path with slashes.
    """
    for folder in folders():
        if _is_ours(folder):
            with suppress(OSError, UnicodeDecodeError):
                return (folder / name).read_text(encoding="utf-8")
    return None


def write_note(name: str, text: str) -> bool:
    """Keep a text under a name, in the first folder that can be written; return whether that worked."""
    for folder in folders():
        path = folder / name
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(folder):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(text, encoding="utf-8")
            part.replace(path)
            return True
    return False


def is_writable() -> bool:
    """Return whether a note would be kept."""
    for folder in folders():
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_ours(folder):
                import tempfile

                tempfile.TemporaryFile(dir=folder).close()
                return True
    return False


def _users_folder() -> Path | None:
    """Return where the system wants caches of this user; None where it cannot tell."""
    import platformdirs  # not at the top: most runs need no cache

    try:
        folder = platformdirs.user_cache_path("cascade", appauthor=False)
    except RuntimeError:  # no HOME, and no entry for this user
        return None
    return folder if folder.is_absolute() else None


def _temporary_folder() -> Path:
    import tempfile  # not at the top, see above

    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"cascade-cache{user}"


def _is_ours(folder: Path) -> bool:
    """Return whether only this user can have written there; in the temporary folder anybody may make one."""
    if folder != _temporary_folder() or not hasattr(os, "getuid"):
        return True
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
