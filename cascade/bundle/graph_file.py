"""Reads the file of a stage, after comparing it with the manifest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cascade.bundle.graph_safety import MAX_GRAPH_BYTES
from cascade.bundle.stage import Stage
from cascade.errors import BundleError

__all__ = ["read_graph"]


def read_graph(folder: Path, stage: Stage) -> bytes:
    """Return the content of a stage's file.

    Raises:
        BundleError: when it is missing, too large, or not the file that the manifest was written for.
    """
    path = folder / stage.file
    try:
        with path.open("rb") as file:
            # Room is reserved for as many bytes as are asked for, so ask for what is there.
            size = os.fstat(file.fileno()).st_size
            if size > MAX_GRAPH_BYTES:
                raise BundleError(
                    f"{path}: is larger than {MAX_GRAPH_BYTES >> 20} MiB, the limit for one graph"
                )
            content = file.read(size + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); copy the bundle again"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != stage.sha256:
        raise BundleError(
            f"{path}: has SHA-256 {found[:12]}..., bundle.json says {stage.sha256[:12]}...; "
            "the file is damaged or was replaced: copy the bundle again"
        )
    return content
