"""Keeps the decoding of large photos within the memory that this process may use.

The limit is that of the container (cgroup, version 1 or 2) or of the process (RLIMIT_AS), whichever leaves
less. The system kills a process that exceeds the limit of its container, without a message, so the memory
that a photo needs is computed from its header before it is decoded. Without a limit nothing is refused. Large
photos are decoded one after the other, however many workers there are. Small ones need so little that they
are not checked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cascade.errors import ImageError

__all__ = ["available_bytes", "cgroup_limit", "reserved"]

#: Bytes up to which a photo is small.
_SMALL: Final = 64 << 20
#: Bytes that are left to everything else: the photos of other workers, and the graphs.
_MARGIN: Final = 32 << 20
#: Version 1 says "no limit" with a number near 2 ** 63.
_UNLIMITED: Final = 1 << 60
_MOUNT: Final = Path("/sys/fs/cgroup")
_GROUPS: Final = Path("/proc/self/cgroup")

_one_large = threading.Lock()


def cgroup_limit(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int | None:
    """Return the least bytes that a cgroup of this process, or one above it, may use; None without a limit.

    Args:
        groups: the file that names the cgroups of this process.
        mount: where cgroups are mounted.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            root, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            with suppress(OSError, ValueError):  # "max" is no number
                limits.append(int((place / name).read_text()))
            if place == root:
                break
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def available_bytes() -> int | None:
    """Return how many bytes more this process may use; None without a limit."""
    try:
        import resource

        virtual, resident = (int(text) for text in Path("/proc/self/statm").read_text().split()[:2])
        page = os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):  # no Linux
        return None
    left = []
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        left.append(address_space - virtual * page)
    container = cgroup_limit()
    if container is not None:
        left.append(container - resident * page)
    return min(left, default=None)


@contextmanager
def reserved(needed: int) -> Iterator[None]:
    """Around the decoding of a photo.

    Args:
        needed: bytes that decoding takes at its peak.

    Raises:
        ImageError: ``not_enough_memory``, when that is more than there is.
    """
    if needed <= _SMALL or available_bytes() is None:
        yield
        return
    with _one_large:
        left = (available_bytes() or 0) - _MARGIN
        if needed > left:
            raise ImageError(
                "not_enough_memory",
                f"would take {needed >> 20:,} MB to decode and {max(0, left) >> 20:,} MB are left; give the "
                "process more memory, or make the photo smaller",
            )
        yield
