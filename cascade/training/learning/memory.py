"""Keeps what the heads of a bundle read for a few thousand known photos, so that learning forgets nothing.

The file `memory.npz` of a bundle holds no photos. Of every photo it holds its label, its source and, per
image stage, the embedding along a few directions: those that the head looks at, so that its logits come back,
and those of the largest variance. Numbers along them are int8. Of what is left over only the length is kept;
read back, it points anywhere, which keeps distances between photos and labels right for the scope stage.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.utils.extmath import randomized_svd

from cascade.arrays import Float32s, Float64s
from cascade.errors import BundleError
from cascade.training.learning.heads import Head

__all__ = ["MEMORY_FILE", "PARTS", "Memory", "read_memory", "write_memory"]

MEMORY_FILE: Final = "memory.npz"
#: What a photo may be used for: to fit heads, or to calibrate what heads say.
PARTS: Final = ("train", "calibration")
#: Directions that are kept beside those of the head.
_DIRECTIONS: Final = 64
_FORMAT: Final = 1
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Embeddings of M known photos and of S strangers: photos that are none of the labels.

    Attributes:
        labels: of the M photos.
        parts: of the M photos, each one of `PARTS`.
        sources: of the M photos; "" if unknown.
        of: image stage -> (M, D), what its head reads.
        strangers: (S, D), of the general model; S may be 0.
        stranger_sources: of the S strangers.
    """

    labels: tuple[str, ...]
    parts: tuple[str, ...]
    sources: tuple[str, ...]
    of: Mapping[str, Float32s]
    strangers: Float32s = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    stranger_sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which photos, (M,), belong to a part."""
        return np.array([part == name for part in self.parts], dtype=np.bool_)

    def joined(self, other: Memory) -> Memory:
        """Return both; stages are those that both have, strangers those of the first."""
        of = {name: np.concatenate([self.of[name], other.of[name]]) for name in self.of if name in other.of}
        return Memory(
            self.labels + other.labels,
            self.parts + other.parts,
            self.sources + other.sources,
            of,
            self.strangers,
            self.stranger_sources,
        )


def write_memory(path: Path, memory: Memory, heads: Mapping[str, Head]) -> None:
    """Write a memory; the same one gives the same file.

    Args:
        path: the file.
        memory: what to keep.
        heads: image stage -> its head, whose directions are kept.
    """
    names, places = np.unique(np.array([*memory.sources, *memory.stranger_sources], str), return_inverse=True)
    arrays: dict[str, npt.NDArray[Any]] = {
        "format": np.array(_FORMAT),
        "labels": np.array(memory.labels, str),
        "parts": np.array([PARTS.index(part) for part in memory.parts], np.uint8),
        "source_names": names,
        "sources": places.astype(np.int32),
    }
    for stage, embedding in memory.of.items():
        strangers = memory.strangers if stage == "general" and len(memory.strangers) else embedding[:0]
        mean = embedding.mean(axis=0, dtype=np.float64)
        basis = _basis(embedding - mean, heads[stage]).astype(np.float16)
        both = np.concatenate([embedding, strangers]) - mean
        along = both @ _exact(basis)
        scale = np.maximum(np.abs(along).max(axis=0), 1e-6) / 127
        rest = np.sqrt(np.maximum((both**2).sum(axis=1) - (along**2).sum(axis=1), 0))
        arrays |= {
            f"{stage}.mean": mean.astype(np.float32),
            f"{stage}.basis": basis,
            f"{stage}.scale": scale.astype(np.float32),
            f"{stage}.codes": np.round(along / scale).astype(np.int8),
            f"{stage}.rest": rest.astype(np.float16),
        }
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_memory(path: Path) -> Memory:
    """Read a memory back.

    Raises:
        BundleError: when the file is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if int(arrays["format"]) != _FORMAT:
            raise BundleError(f"{path}: has another format; install the version of cascade that wrote it")
        labels = tuple(str(label) for label in arrays["labels"])
        sources = tuple(str(name) for name in arrays["source_names"][arrays["sources"]])
        stages = [name.removesuffix(".codes") for name in arrays if name.endswith(".codes")]
        of = {stage: _read_back(stage, arrays) for stage in stages}
        m = len(labels)
        return Memory(
            labels,
            tuple(PARTS[part] for part in arrays["parts"]),
            sources[:m],
            {stage: embedding[:m] for stage, embedding in of.items()},
            of["general"][m:],
            sources[m:],
        )
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: is no memory of a bundle ({error})") from error


def _basis(centred: Float64s, head: Head) -> Float64s:
    """Return orthonormal directions, (D, S): what the head looks at, then those of largest variance."""
    width = centred.shape[1]
    looked_at = np.linalg.svd(head.weights, full_matrices=False)[2][: min(len(head.weights), width)]
    left = centred - (centred @ looked_at.T) @ looked_at
    count = min(_DIRECTIONS, width - len(looked_at), len(centred) - 1)
    if count < 1:
        return np.asarray(looked_at.T)
    varied = randomized_svd(left, count, n_iter=4, random_state=_SEED)[2]
    return np.asarray(np.linalg.qr(np.concatenate([looked_at, varied]).T)[0])


def _read_back(stage: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Float32s:
    basis = _exact(arrays[f"{stage}.basis"])
    known = (arrays[f"{stage}.codes"] * arrays[f"{stage}.scale"]) @ basis.T
    random = np.random.default_rng(_SEED).standard_normal(known.shape)
    random -= (random @ basis) @ basis.T
    length = np.linalg.norm(random, axis=1, keepdims=True)
    rest = arrays[f"{stage}.rest"].astype(np.float64)[:, None]
    return np.asarray(arrays[f"{stage}.mean"] + known + random * rest / np.maximum(length, 1e-12), np.float32)


def _exact(basis: npt.NDArray[Any]) -> Float64s:
    """Return the orthonormal directions next to those that half precision kept."""
    return np.asarray(np.linalg.qr(basis.astype(np.float64))[0])
