"""Counts the processor cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

__all__ = ["usable_cores"]

#: What a container may use of the processor, "QUOTA PERIOD" or "max PERIOD" in microseconds (cgroup v2).
_CGROUP: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(limit: Path = _CGROUP) -> int:
    """Return how many cores this process may use, at least 1.

    The affinity mask of the process and the CPU limit of its container are respected.

    Args:
        limit: file with the container's limit; where there is none, there is no limit.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores
