"""Declares one graph of a bundle, as bundle.json holds it, and the variants that it has."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Final, Literal, Self

import msgspec

from cascade.errors import BundleError
from cascade.imaging.preprocessing import InputSpec
from cascade.validated import Positive, Validated

__all__ = [
    "EXACT",
    "FEATURES",
    "IMAGE",
    "Arbiter",
    "Expert",
    "General",
    "GraphFile",
    "ImageStage",
    "Name",
    "Router",
    "Scope",
    "Sha256",
    "Stage",
]

#: The variant that every stage has: its main file.
EXACT: Final = "exact"
#: What an image stage takes: prepared pixels, or early features that the general model has computed already.
IMAGE: Final = "image"
FEATURES: Final = "features"

#: Of a label, a group of labels or a bundle.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hex.")]
_GraphName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^/\\:\x00-\x1f]+\.onnx$",
        max_length=200,
        description="The name of a graph in the folder of the bundle; never a path.",
    ),
]


class GraphFile(Validated, frozen=True, kw_only=True):
    """A graph in the folder of the bundle, and its SHA-256."""

    file: _GraphName
    sha256: Sha256


class Stage(GraphFile, frozen=True, kw_only=True):
    """One graph of a bundle.

    Attributes:
        file: file name inside the bundle.
        sha256: of the file.
        labels: what the columns of the output mean; an expert's last one is `NOT_MINE`.
        cost: of one run, in units of one run of the general model (measured side by side).
    """

    labels: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    cost: Positive = 1.0

    @property
    @abstractmethod
    def name(self) -> str:
        """``"general"``, ``"router"``, ``"arbiter"``, ``"scope"`` or the name of an expert."""


class Router(Stage, frozen=True, kw_only=True):
    """general_logits -> what each expert is expected to add."""

    name: ClassVar[str] = "router"


class Arbiter(Stage, frozen=True, kw_only=True):
    """All logits -> one calibrated probability per label."""

    name: ClassVar[str] = "arbiter"


class Scope(Stage, frozen=True, kw_only=True):
    """general_logits, embedding -> how unlike everything known a photo is."""

    name: ClassVar[str] = "scope"


class ImageStage(Stage, frozen=True, kw_only=True):
    """A graph that sees the photo.

    Attributes:
        input: what its image looks like.
        takes: ``image``, or of an expert ``features``: what `general.onnx` gives under that name.
        variants: name -> another graph with the same inputs and outputs, e.g. ``int8``; faster, and close.
    """

    input: InputSpec
    takes: Literal["image", "features"] = IMAGE
    variants: dict[str, GraphFile] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if EXACT in self.variants:
            raise BundleError(f"stage {self.name!r}: {EXACT!r} names the main file and cannot name a variant")

    def as_variant(self, name: str) -> Self:
        """Return the stage with the file of a variant, its own if it has no such variant.

        The result has no other variants: what was chosen once stays chosen wherever the bundle is handed on.
        """
        graph = self.variants.get(name, self)
        return self.replace(file=graph.file, sha256=graph.sha256, variants={})


class General(ImageStage, frozen=True, kw_only=True):
    """The image stage that sees every photo."""

    name: ClassVar[str] = "general"


class Expert(ImageStage, frozen=True, kw_only=True):
    """An image stage that sees the photos that are passed on to it.

    Attributes:
        name: of the expert.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_]{1,64}$")]
