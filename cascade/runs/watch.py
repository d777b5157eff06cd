"""Watches folders, and yields the photos that are there, then those that arrive, once they stop growing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from cascade.errors import needs_extra
from cascade.imaging.files import FindOptions, Found, find_changed, find_photos, look_at

__all__ = ["SETTLE_SECONDS", "Settling", "settled_batches", "watch_batches"]

#: A file counts as complete when size and time of change stayed the same for this long.
SETTLE_SECONDS: Final = 2.0

_POLL_SECONDS: Final = 0.5


class Settling:
    """Photos that may still be growing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[int, int, float]] = {}

    def see(self, found: Found, now: float) -> None:
        """Note size and time of a file; the wait begins again if they changed."""
        before = self._seen.get(found.path)
        if before is None or before[:2] != (found.size, found.mtime_ns):
            self._seen[found.path] = (found.size, found.mtime_ns, now)

    def settled(self, now: float) -> list[Found]:
        """Return the photos whose wait is over, by path, and forget them."""
        done = []
        for path in sorted(self._seen):
            size, mtime_ns, since = self._seen[path]
            if now - since < self._seconds:
                continue
            found = look_at(path)
            if found.size < 0:  # gone again
                del self._seen[path]
            elif (found.size, found.mtime_ns) == (size, mtime_ns):
                done.append(found)
                del self._seen[path]
            else:
                self.see(found, now)
        return done


def watch_batches(
    roots: Sequence[str],
    options: FindOptions,
    stopped: Callable[[], bool],
    *,
    settle_seconds: float = SETTLE_SECONDS,
) -> Iterator[Iterable[Found]]:
    """Return batches of photos until ``stopped``.

    Watching begins before the folders are looked through for the first time, so that nothing is missed in
    between. A photo that changes later comes again.

    Args:
        roots: folders (files are allowed; their changes are noticed too).
        options: see `cascade.imaging.files.FindOptions`.
        stopped: whether to end; looked at twice a second.
        settle_seconds: see `SETTLE_SECONDS`.

    Raises:
        MissingExtraError: at once, when watchfiles is not installed.
    """
    with needs_extra("--watch", "watch"):
        from watchfiles import watch
    changes = watch(
        *roots,
        watch_filter=None,
        debounce=200,
        step=100,
        rust_timeout=int(_POLL_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    return settled_batches(roots, options, stopped, changes, settle_seconds)


def settled_batches(
    roots: Sequence[str],
    options: FindOptions,
    stopped: Callable[[], bool],
    changes: Iterable[Collection[tuple[object, str]]],
    settle_seconds: float,
) -> Iterator[Iterable[Found]]:
    """Yield batches of photos as `watch_batches` does, for changes from any source.

    Args:
        roots: as for `watch_batches`.
        options: likewise.
        stopped: likewise; looked at with every element of ``changes``.
        changes: sets of (kind, path) as watchfiles reports them; an empty set lets time pass.
        settle_seconds: see `SETTLE_SECONDS`.
    """
    settling = Settling(settle_seconds)
    first = True
    for changed in changes:
        if stopped():
            return
        now = time.monotonic()
        if first:  # the watcher runs now
            yield _old_enough(find_photos(roots, options), settling, settle_seconds)
            first = False
        for _, path in changed:
            # Folders may contain each other; a photo belongs to the first that it is found in, as in a scan.
            below = (list(find_changed(root, path, options)) for root in roots)
            for found in next(filter(None, below), []):
                settling.see(found, now)
        ready = settling.settled(time.monotonic())
        if ready:
            yield ready


def _old_enough(found: Iterable[Found], settling: Settling, seconds: float) -> Iterator[Found]:
    for one in found:
        if one.size >= 0 and time.time() - one.mtime_ns / 1e9 < seconds:
            settling.see(one, time.monotonic())
        else:
            yield one
