"""Reads and checks the manifest of a bundle, which is a folder of ONNX graphs and `bundle.json`.

    bundle.json     what is here; see `Bundle` for every field
    general.onnx    image -> logits, embedding
    <expert>.onnx   image -> logits, the last one meaning "not mine"
    router.onnx     general_logits -> gain                       (absent in a bundle without experts)
    arbiter.onnx    general_logits, <expert>_logits, asked -> probabilities
    scope.onnx      general_logits, embedding -> score; higher is stranger    (may be absent)
    golden/         inputs and the outputs expected at every stage
    metrics.json    everything that was measured      memory.npz  embeddings of known photos (may be absent)
    README.md       the model card                    POLICY.md   from probabilities to an answer, in words

Reading a bundle runs no code of the bundle: JSON and ONNX only, hashes checked before a graph is loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from cascade.bundle.graph_file import read_graph
from cascade.bundle.schema import FORMAT_VERSION, Label, Manifest, Stages
from cascade.bundle.stage import EXACT, FEATURES, Arbiter, Expert, General, ImageStage, Router, Scope, Stage
from cascade.errors import BundleError, UsageError
from cascade.guarantees.budget import BudgetCurve
from cascade.guarantees.conformal_sets import LabelSets
from cascade.guarantees.drift import Reference
from cascade.guarantees.risk_control import Promise
from cascade.imaging.preprocessing import decoding_of
from cascade.labels import NOT_MINE, LabelTree
from cascade.onnx_runtime import ort
from cascade.policy import OperatingPoint

__all__ = ["BUNDLE_ENVIRONMENT_VARIABLE", "Bundle", "find_bundle"]

BUNDLE_ENVIRONMENT_VARIABLE: Final = "CASCADE_BUNDLE"
MANIFEST: Final = "bundle.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated manifest. `cascade.inference.pipeline` loads and runs the graphs.

    Attributes:
        folder: where it is.
        name: of the bundle, e.g. ``"default"``.
        version: of the bundle, e.g. ``"0.1.0"``; see models/CHANGELOG.md.
        tree: leaf labels in the order of `probabilities`, and their parents.
        general: the stage that sees every photo.
        experts: in the order of the router's and arbiter's columns; may be empty.
        router: None if there are no experts.
        arbiter: present in every bundle; without experts it only calibrates.
        scope: says how unlike everything known a photo is; None if no operating point asks for it.
        operating_points: by name; ``"default"`` is always there.
        promise: every operating point that keeps a promise about errors; None if nothing can be promised.
        budget: the dial between speed and accuracy; None without experts, or if it was made without.
        label_sets: the numbers of label sets; None if the bundle was made without.
        reference: what the photos were like that the promise was tested on; None likewise.
        minimum_onnxruntime: oldest version that runs every graph.
        provenance: recipes, data sources, licences, commit, seed.
        measured: figures of the exported graphs, each with the command that printed it.

    Raises:
        BundleError: when the parts do not fit together.
    """

    folder: Path
    name: str
    version: str
    tree: LabelTree
    general: General
    experts: tuple[Expert, ...]
    router: Router | None
    arbiter: Arbiter
    operating_points: dict[str, OperatingPoint]
    minimum_onnxruntime: str
    provenance: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    scope: Scope | None = None
    promise: Promise | None = None
    budget: BudgetCurve | None = None
    label_sets: LabelSets | None = None
    reference: Reference | None = None

    def __post_init__(self) -> None:
        labels = self.tree.labels
        if self.general.labels != labels:
            raise BundleError("the general model's labels are not the bundle's labels, in the same order")
        if self.arbiter.labels != labels:
            raise BundleError("the arbiter's labels are not the bundle's labels, in the same order")
        names = [expert.name for expert in self.experts]
        if len(set(names)) != len(names):
            raise BundleError("two experts have the same name")
        for expert in self.experts:
            foreign = set(expert.labels[:-1]) - set(labels)
            if expert.labels[-1] != NOT_MINE or foreign:
                raise BundleError(
                    f"expert {expert.name!r}: labels must be labels of the bundle, then {NOT_MINE!r}"
                    + (f"; it also has {', '.join(sorted(foreign))}" if foreign else "")
                )
        for stage in self.image_stages:
            if stage.takes == FEATURES and (stage is self.general or stage.input != self.general.input):
                raise BundleError(
                    f"stage {stage.name!r}: takes the general model's features, so it must be an expert "
                    "with the same input specification"
                )
        if bool(self.experts) != (self.router is not None):
            raise BundleError("a bundle with experts needs a router, and one without has none")
        if self.router is not None and list(self.router.labels) != names:
            raise BundleError("the router's outputs are not the experts, in the same order")
        limits = [point.scope_threshold for point in self.operating_points.values()]
        limits += [self.promise.scope_threshold] if self.promise else []
        if self.budget is not None:
            costs = [expert.cost for expert in self.experts]
            self.budget.check(costs, self.operating_points["default"])
            limits += [point.operating_point.scope_threshold for point in self.budget.points]
        if self.scope is None and any(limit is not None for limit in limits):
            raise BundleError("a scope threshold needs the stage 'scope'")
        if self.reference is not None and set(self.reference.labels) != set(labels):
            raise BundleError("the labels of the reference are not the bundle's labels")

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None = None) -> Bundle:
        """Read and check `bundle.json`; graphs and hashes are checked when a stage is opened.

        Args:
            folder: None looks where `find_bundle` says.
        """
        root = find_bundle(folder)
        manifest = Manifest.read(root / MANIFEST)
        try:
            return cls.from_manifest(root, manifest)
        except BundleError as error:
            raise BundleError(f"{root / MANIFEST}: {error}") from None

    @classmethod
    def from_manifest(cls, folder: Path, manifest: Manifest) -> Bundle:
        """Return the bundle that a manifest describes; raises `BundleError` when its parts do not fit."""
        labels = tuple(item.label for item in manifest.labels)
        if _version(ort.__version__) < _version(manifest.minimum_onnxruntime):
            raise BundleError(
                f"needs onnxruntime {manifest.minimum_onnxruntime}, this is {ort.__version__}; "
                f"run: pip install 'onnxruntime>={manifest.minimum_onnxruntime}'"
            )
        return cls(
            folder=folder,
            tree=LabelTree(labels, {item.label: item.parent for item in manifest.labels}),
            **{name: getattr(manifest.stages, name) for name in Stages.__struct_fields__},
            **{name: getattr(manifest, name) for name in _SHARED},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `bundle.json`, without the hashes of files."""
        return Manifest(
            format_version=FORMAT_VERSION,
            labels=tuple(Label(label=label, parent=self.tree.parent_of[label]) for label in self.tree.labels),
            stages=Stages(**{name: getattr(self, name) for name in Stages.__struct_fields__}),
            **{name: getattr(self, name) for name in _SHARED},
        ).to_dict()

    @property
    def image_stages(self) -> tuple[ImageStage, ...]:
        """The general model and the experts."""
        return (self.general, *self.experts)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage, in the order in which a photo meets them."""
        router = (self.router,) if self.router else ()
        scope = (self.scope,) if self.scope else ()
        return (self.general, *scope, *router, *self.experts, self.arbiter)

    @property
    def variants(self) -> tuple[str, ...]:
        """Every variant that an image stage has; ``"exact"``, which all have, comes first."""
        names = {name for stage in self.image_stages for name in stage.variants}
        return (EXACT, *sorted(names))

    def with_variant(self, name: str) -> Bundle:
        """Return the bundle with the graphs of a variant; a stage that lacks it keeps its exact graph.

        Raises:
            UsageError: when no stage has this variant.
        """
        if name not in self.variants:
            raise UsageError(f"the bundle has no variant {name!r}; it has {', '.join(self.variants)}")
        experts = tuple(expert.as_variant(name) for expert in self.experts)
        return replace(self, general=self.general.as_variant(name), experts=experts)

    @property
    def decode_target(self) -> tuple[int, int]:
        """(width, height) in pixels that one decode must give so that every stage can be fed from it."""
        return decoding_of([stage.input for stage in self.image_stages])[0]

    @property
    def reducing_gap(self) -> float:
        """The largest `InputSpec.reducing_gap` of all stages."""
        return decoding_of([stage.input for stage in self.image_stages])[1]

    def check_hash(self, stage: Stage) -> None:
        """Compare a file with the manifest; raises `BundleError` when it is missing or differs."""
        read_graph(self.folder, stage)


#: Fields that `Bundle` and `Manifest` have in common.
_SHARED: Final = tuple(field.name for field in fields(Bundle) if field.name in Manifest.__struct_fields__)


def find_bundle(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the bundle to use.

    The argument wins, then ``$CASCADE_BUNDLE``, then the bundle inside the installed package, then
    ``models/default`` beside the package in a clone.

    Raises:
        BundleError: when there is none; the message says where it was looked for.
    """
    package = Path(__file__).resolve().parents[1]
    from_environment = os.environ.get(BUNDLE_ENVIRONMENT_VARIABLE)
    if folder is not None:
        candidates, source = [Path(folder)], "the bundle that was asked for"
    elif from_environment:
        candidates, source = [Path(from_environment)], f"${BUNDLE_ENVIRONMENT_VARIABLE}"
    else:
        candidates = [package / "models" / "default", package.parent / "models" / "default"]
        source = "the shipped bundle"
    for candidate in candidates:
        if (candidate / MANIFEST).is_file():
            return candidate
    places = " or ".join(str(candidate) for candidate in candidates)
    raise BundleError(
        f"{source} is not at {places} (no {MANIFEST} there); give --bundle DIR, set "
        f"${BUNDLE_ENVIRONMENT_VARIABLE}, or make one with: cascade train DATA --out DIR"
    )


def _version(text: str) -> tuple[int, ...]:
    parts = []
    for part in text.split(".")[:3]:
        digits = "".join(c for c in part if c.isdigit())
        parts.append(int(digits or 0))
    return tuple(parts)
