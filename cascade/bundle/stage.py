"""Describes one graph of a bundle and the variants that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from cascade.errors import BundleError
from cascade.imaging.preprocessing import InputSpec

__all__ = ["EXACT", "FEATURES", "IMAGE", "GraphFile", "Stage"]

#: The variant that every stage has: its main file.
EXACT: Final = "exact"
#: What an image stage takes: prepared pixels, or early features that the general model has computed already.
IMAGE: Final = "image"
FEATURES: Final = "features"


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A file of a bundle: its name inside the bundle and its SHA-256 in lower-case hex.

    Raises:
        BundleError: when either is none.
    """

    file: str
    sha256: str

    def __post_init__(self) -> None:
        if PurePosixPath(self.file).name != self.file or not self.file.endswith(".onnx"):
            raise BundleError(f"{self.file!r} must be the name of an .onnx file in the bundle")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise BundleError(f"{self.sha256!r} is not a SHA-256 in lower-case hex")


@dataclass(frozen=True, slots=True)
class Stage:
    """One graph of a bundle.

    Attributes:
        name: ``"general"``, ``"router"``, ``"arbiter"``, ``"scope"`` or the name of an expert.
        file: file name inside the bundle.
        sha256: of the file.
        labels: what the columns of the output mean; an expert's last one is `NOT_MINE`.
        input: what its image looks like; None for graphs that see no image.
        cost: of one run, in units of one run of the general model (measured side by side).
        takes: `IMAGE`, or of an expert `FEATURES`: what `general.onnx` gives under that name.
        variants: name -> another graph with the same inputs and outputs, e.g. ``"int8"``; faster, and close.

    Raises:
        BundleError: when a value makes no sense.
    """

    name: str
    file: str
    sha256: str
    labels: tuple[str, ...]
    input: InputSpec | None = None
    cost: float = 1.0
    takes: str = IMAGE
    variants: Mapping[str, GraphFile] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        where = f"stage {self.name!r}"
        try:
            GraphFile(self.file, self.sha256)
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from None
        if EXACT in self.variants:
            raise BundleError(f"{where}: {EXACT!r} names the main file and cannot name a variant")
        if self.takes not in (IMAGE, FEATURES):
            raise BundleError(f"{where}: takes {self.takes!r}; it must be {IMAGE!r} or {FEATURES!r}")
        if not self.labels:
            raise BundleError(f"{where}: has no labels")
        if not self.cost > 0:
            raise BundleError(f"{where}: cost is {self.cost}, not above 0")

    @classmethod
    def from_dict(cls, name: str, data: dict[str, Any]) -> Stage:
        """Build from the JSON form."""
        try:
            return cls(
                name=name,
                file=str(data["file"]),
                sha256=str(data["sha256"]),
                labels=tuple(str(label) for label in data["labels"]),
                input=InputSpec.from_dict(data["input"]) if data.get("input") else None,
                cost=float(data.get("cost", 1.0)),
                takes=str(data.get("takes", IMAGE)),
                variants={
                    str(key): GraphFile(str(value["file"]), str(value["sha256"]))
                    for key, value in data.get("variants", {}).items()
                },
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"stage {name!r}: field missing or wrong: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the name, which is the key that it stands under."""
        data: dict[str, Any] = {
            "file": self.file,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "cost": self.cost,
        }
        if self.input is not None:
            data["input"] = self.input.to_dict()
            data["takes"] = self.takes
        if self.variants:
            data["variants"] = {k: {"file": v.file, "sha256": v.sha256} for k, v in self.variants.items()}
        return data

    def as_variant(self, name: str) -> Stage:
        """Return the stage with the file of a variant, its own if it has no such variant.

        The result has no other variants: what was chosen once stays chosen wherever the bundle is handed on.
        """
        graph = self.variants.get(name, self)
        return replace(self, file=graph.file, sha256=graph.sha256, variants={})
