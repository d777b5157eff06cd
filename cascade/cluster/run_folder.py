"""Begins, continues or begins again the output folder of a cluster run, and keeps out a second run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from cascade.cluster.output_folder import OutputFolder
from cascade.cluster.part import RUN_FILE
from cascade.cluster.plan import part_number
from cascade.errors import OutputError, UsageError
from cascade.ownership import GENERATOR

__all__ = ["begin"]

_HOMES: Final = ("_cascade", "_cascade/plan", "_cascade/begun")
_LOCK: Final = "_cascade/lock"


@contextmanager
def begin(
    folder: OutputFolder, fingerprint: Mapping[str, str], *, resume: bool, restart: bool
) -> Iterator[None]:
    """Make a folder ready for a run, and hold it as long as the block lasts.

    Args:
        folder: new, empty, or of an earlier run.
        fingerprint: name -> value of everything that must not change between a run and its continuation.
        resume: continue what is there; simply begin if nothing is.
        restart: remove what an earlier run wrote there.

    Raises:
        OutputError: when something else is there, or another process writes to it.
        UsageError: when the run was started with another fingerprint.
    """
    content = folder.read(RUN_FILE)
    if content is None:
        _check_empty(folder)
    elif not resume and not restart:
        raise OutputError(
            f"{folder.url}: holds a run already; continue it with --resume, begin again with --restart, or "
            "give another name to --output"
        )
    with _locked(folder):
        if content is not None and restart:
            _clear(folder)
            content = None
        if content is None:
            kept = {"generator": GENERATOR, "fingerprint": dict(fingerprint)}
            folder.write(RUN_FILE, json.dumps(kept, indent=1).encode())
        else:
            _compare(folder, json.loads(content), fingerprint)
            _remove_leftovers(folder)
        yield


def _compare(folder: OutputFolder, kept: Mapping[str, Any], fingerprint: Mapping[str, str]) -> None:
    for name, now in fingerprint.items():
        before = kept["fingerprint"].get(name)
        if before != now:
            raise UsageError(
                f"{folder.url}: the run was started with {name} = {before}, now it is {now}; rows of two "
                "kinds must not mix: give the same command, or begin again with --restart"
            )


def _check_empty(folder: OutputFolder) -> None:
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise OutputError(f"{folder.url}: is no folder; give another name to --output")
    names = folder.names()
    if names:
        raise OutputError(
            f"{folder.url}: holds files that are not of a run of cascade ({sorted(names)[0]}), and is left "
            "as it is; give an empty or new folder to --output"
        )


def _clear(folder: OutputFolder) -> None:
    folder.remove(*(name for name in folder.names() if part_number(name) is not None))
    lock = _LOCK.rpartition("/")[2]
    for home in reversed(_HOMES):
        folder.remove(*(f"{home}/{name}" for name in folder.names(home) if name != lock))


def _remove_leftovers(folder: OutputFolder) -> None:
    """Remove files that were being written when an earlier run was killed; they have no name yet."""
    for home in ("", *_HOMES):
        for name in folder.names(home):
            if name.startswith(".cascade-") and name.endswith(".new"):
                folder.remove(f"{home}/{name}".lstrip("/"))


@contextmanager
def _locked(folder: OutputFolder) -> Iterator[None]:
    """Hold the lock of a folder on disk; object stores have none, and parts written twice are alike."""
    try:
        import fcntl
    except ImportError:  # Windows, where Ray is for experiments only
        yield
        return
    if folder.local is None:
        yield
        return
    path = folder.local / _LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError.writing(folder.url, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"{folder.url}: another cascade is writing there; wait for it to end, or stop it"
            ) from error
        yield
    finally:
        os.close(descriptor)
