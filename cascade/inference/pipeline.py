"""Takes photos through every stage of a bundle; prediction, evaluation, checks and calibration all use it.

photos -> prepare -> general -> scope, router -> experts -> arbiter -> StageOutputs
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from cascade.arrays import Bools, Float32s, Float64s, Pixels, softmax
from cascade.bundle.stage import FEATURES, Arbiter, Expert, General, ImageStage, Router, Scope, Stage
from cascade.errors import ImageError
from cascade.imaging.decoding import MAX_PIXELS, ImageSource, load_image
from cascade.imaging.preprocessing import InputSpec, decoding_of
from cascade.inference.arbitration import arbiter_feeds
from cascade.inference.photo_inputs import PhotoInputs
from cascade.inference.routing import choose_experts
from cascade.inference.session import GraphSession, open_stage

if TYPE_CHECKING:
    from cascade.bundle.manifest import Bundle

__all__ = ["Pipeline", "PreparedPhotos", "StageOutputs", "graph_outputs"]


@dataclass(frozen=True, slots=True)
class PreparedPhotos:
    """Photos that were decoded; what `Pipeline.prepare` returns.

    Attributes:
        inputs: input specification -> uint8 (N, H, W, 3), of the N photos that could be read; empty if none.
        positions: N ascending places among the photos that were given.
        read_ms: N pairs of milliseconds: decoding, preprocessing for the general model.
        warnings: N tuples of what was odd about a photo, see `Prediction`.
        failed: (place, error, milliseconds) of every other photo.
    """

    inputs: Mapping[InputSpec, Pixels]
    positions: tuple[int, ...]
    read_ms: tuple[tuple[float, float], ...]
    warnings: tuple[tuple[str, ...], ...]
    failed: tuple[tuple[int, ImageError, float], ...]


@dataclass(frozen=True, slots=True)
class StageOutputs:
    """What every stage computed for N photos; what `Pipeline.run` returns.

    Attributes:
        general_logits: (N, L).
        embedding: (N, D), of the general model.
        gain: (N, E), what the router expects each expert to add, in nats.
        deferred: (N, E), whether the photo was passed on to the expert.
        expert_logits: expert -> (n, K + 1), rows only for the photos that were passed on to it, in order.
        general_probabilities: (N, L), calibrated, of the general model alone.
        probabilities: (N, L), calibrated, of the general model and every expert that saw the photo.
        scope_score: (N,), higher is stranger; None if the bundle has no scope stage.
        seconds: stage -> seconds that it took for all its photos.
    """

    general_logits: Float32s
    embedding: Float32s
    gain: Float32s
    deferred: Bools
    expert_logits: Mapping[str, Float32s]
    general_probabilities: Float32s
    probabilities: Float32s
    scope_score: Float32s | None
    seconds: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.general_logits)


class Pipeline:
    """The stages of a bundle, or of one in the making, ready to run.

    Thread-safe. A graph is loaded when it is first needed, after its hash and its operators were checked.

    Args:
        folder: where the graphs are.
        general: the stage that sees every photo.
        experts: in the order of the router's and arbiter's columns.
        router: None leaves `StageOutputs.gain` zero.
        arbiter: None, in a bundle that is not calibrated yet, gives the plain softmax of the general model.
        scope: None leaves `StageOutputs.scope_score` None.
    """

    def __init__(
        self,
        folder: Path,
        general: General,
        experts: Sequence[Expert],
        *,
        router: Router | None = None,
        arbiter: Arbiter | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._folder = folder
        self._general, self._experts = general, tuple(experts)
        self._router, self._arbiter, self._scope = router, arbiter, scope
        self._specs = {stage.name: stage.input for stage in (general, *experts)}
        self._costs: Float64s = np.array([expert.cost for expert in experts], dtype=np.float64)
        self._lock = threading.Lock()
        self._sessions: dict[str, GraphSession] = {}

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return the pipeline of a finished bundle."""
        return cls(
            bundle.folder,
            bundle.general,
            bundle.experts,
            router=bundle.router,
            arbiter=bundle.arbiter,
            scope=bundle.scope,
        )

    def prepare(self, photos: Iterable[ImageSource], *, max_pixels: int = MAX_PIXELS) -> PreparedPhotos:
        """Decode each photo once and make the input of the general model; those of experts follow on demand.

        Args:
            photos: what `cascade.imaging.decoding.load_image` takes, any number of them.
            max_pixels: photos with more pixels fail with ``too_many_pixels``.

        Raises:
            UsageError: when an item is of a type that is no photo.
        """
        specs = tuple(dict.fromkeys(self._specs.values()))
        target, reducing_gap = decoding_of(specs)
        inputs = PhotoInputs(specs)
        positions, read_ms, warnings, failed = [], [], [], []
        for position, source in enumerate(photos):
            started = time.perf_counter()
            odd: list[str] = []
            try:
                image = load_image(
                    source,
                    target=target,
                    reducing_gap=reducing_gap,
                    max_pixels=max_pixels,
                    on_warning=odd.append,
                )
            except ImageError as error:
                failed.append((position, error, (time.perf_counter() - started) * 1e3))
                continue
            decoded = time.perf_counter()
            inputs.add(image)
            positions.append(position)
            warnings.append(tuple(odd))
            read_ms.append(((decoded - started) * 1e3, (time.perf_counter() - decoded) * 1e3))
        return PreparedPhotos(inputs, tuple(positions), tuple(read_ms), tuple(warnings), tuple(failed))

    def run(
        self, inputs: Mapping[InputSpec, Pixels], *, ask: str = "router", cost_weight: float = 0.0
    ) -> StageOutputs:
        """Run every stage on prepared photos.

        Args:
            inputs: input specification -> uint8 (N, H, W, 3), for every specification that a stage has;
                N above 0.
            ask: one of `cascade.inference.routing.ASK_MODES`.
            cost_weight: see `cascade.policy.OperatingPoint`.

        Raises:
            BundleError: when a graph is damaged or is not what the manifest says.
            UsageError: for an unknown ``ask``.
        """
        clock = _Clock()
        general = self.session(self._general).run_photos(inputs[self._specs[self._general.name]])
        logits = general["logits"]
        clock.lap("general")

        scope_score = None
        if self._scope is not None:
            feeds = {"general_logits": logits, "embedding": general["embedding"]}
            scope_score = self.session(self._scope).run(feeds)["score"][:, 0]
            clock.lap("scope")

        gain = self.gain(logits) if ask == "router" else self._no_gain(logits)
        deferred = choose_experts(gain, self._costs, cost_weight, ask)
        clock.lap("router")

        expert_logits = {}
        for column, expert in enumerate(self._experts):
            rows = deferred[:, column]
            if rows.any():
                seen = (
                    general[FEATURES][rows]
                    if expert.takes == FEATURES
                    else _rows(inputs, self._specs[expert.name], rows)
                )
                expert_logits[expert.name] = self.session(expert).run_photos(seen)["logits"]
                clock.lap(expert.name)

        # With nobody asked, the arbiter is the calibrated general model.
        alone = self.arbitrate(logits, {}, np.zeros_like(deferred))
        together = self.arbitrate(logits, expert_logits, deferred) if deferred.any() else alone
        clock.lap("arbiter")
        return StageOutputs(
            general_logits=logits,
            embedding=general["embedding"],
            gain=gain,
            deferred=deferred,
            expert_logits=expert_logits,
            general_probabilities=alone,
            probabilities=together,
            scope_score=scope_score,
            seconds=clock.seconds,
        )

    def gain(self, general_logits: Float32s) -> Float32s:
        """Return what the router expects each expert to add, (N, E) in nats; zeros without a router."""
        if self._router is None:
            return self._no_gain(general_logits)
        return self.session(self._router).run({"general_logits": general_logits})["gain"]

    def arbitrate(
        self, general_logits: Float32s, expert_logits: Mapping[str, Float32s], deferred: Bools
    ) -> Float32s:
        """Return calibrated probabilities, (N, L); the arguments are those of `StageOutputs`."""
        if self._arbiter is None:
            return softmax(general_logits)
        widths = {expert.name: len(expert.labels) for expert in self._experts}
        feeds = arbiter_feeds(general_logits, expert_logits, deferred, widths)
        return self.session(self._arbiter).run(feeds)["probabilities"]

    def session(self, stage: Stage) -> GraphSession:
        """Return the loaded graph of one of the stages.

        Raises:
            BundleError: when it is damaged or is not what the manifest says.
        """
        session = self._sessions.get(stage.name)
        if session is None:
            with self._lock:
                if stage.name not in self._sessions:
                    self._sessions[stage.name] = self._open(stage)
                session = self._sessions[stage.name]
        return session

    def _no_gain(self, general_logits: Float32s) -> Float32s:
        return np.zeros((len(general_logits), len(self._experts)), dtype=np.float32)

    def _open(self, stage: Stage) -> GraphSession:
        if isinstance(stage, ImageStage):
            shared = any(expert.takes == FEATURES for expert in self._experts)
            inputs, outputs = [str(stage.takes)], graph_outputs(stage.name, shared=shared)
        elif isinstance(stage, Router):
            inputs, outputs = ["general_logits"], ["gain"]
        elif isinstance(stage, Scope):
            inputs, outputs = ["general_logits", "embedding"], ["score"]
        else:
            experts = [*(f"{expert.name}_logits" for expert in self._experts), "asked"]
            inputs, outputs = ["general_logits", *(experts if self._experts else ())], ["probabilities"]
        return open_stage(self._folder, stage, inputs, outputs)


def graph_outputs(name: str, *, shared: bool) -> list[str]:
    """Return what an image stage gives, its labels first; ``shared`` if experts take the general features."""
    if name != "general":
        return ["logits"]
    return ["logits", "embedding", FEATURES] if shared else ["logits", "embedding"]


def _rows(inputs: Mapping[InputSpec, Pixels], spec: InputSpec, chosen: Bools) -> Pixels:
    """Return the input of the chosen photos; of photos that `Pipeline.prepare` read, made now."""
    return inputs.rows(spec, chosen) if isinstance(inputs, PhotoInputs) else inputs[spec][chosen]


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._started
        self._started = now
