"""The cascade itself. In: photos. Out: `Prediction`s.

    image -> images -> preprocess -> general -> router -> experts -> arbiter -> policy -> Prediction

A worker takes a few photos and walks them through every stage; several workers run side by side, one per
core, each graph on one thread. Results come out in the order in which the photos went in.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.bundle.manifest import Bundle, Stage
from cascade.bundle.stage import FEATURES
from cascade.errors import ImageError, UsageError
from cascade.guarantees.conformal_sets import LabelSets
from cascade.imaging.decoding import MAX_PIXELS, ImageSource, load_image
from cascade.imaging.preprocessing import InputSpec, prepare
from cascade.inference.arbitration import arbiter_feeds
from cascade.inference.cpu import usable_cores
from cascade.inference.operating_point import choose_point
from cascade.inference.routing import choose_experts
from cascade.inference.session import GraphSession
from cascade.inference.stage_outputs import FloatArray, PreparedPhotos, StageOutputs
from cascade.policy import decide
from cascade.prediction import ErrorInfo, Opinion, Prediction

__all__ = ["Cascade", "PreparedPhotos", "StageOutputs"]


class Cascade:
    """Classifies photos with a bundle.

    Thread-safe: one instance serves a whole process. The general model is loaded at once, an expert
    when it is first asked.

    Args:
        bundle: folder of a bundle, or an already loaded `Bundle`; None takes ``$CASCADE_BUNDLE`` or the
            shipped one.
        operating_point: a name from the bundle; decides between a label, a parent and "unknown".
        max_error: instead of an operating point, the share of wrong ones among the answers that is
            accepted, e.g. 0.05: what cannot be answered within it is "unknown".
            `cascade.guarantees.risk_control` says what exactly is promised.
        budget: how much may be spent on experts, from 0, the general model alone, to 1, asking whenever it
            may help; see `cascade.guarantees.budget`. ``Cascade.budget`` is the step of the dial that is
            used, and ``Cascade.operating_point.max_error`` what is promised with it.
        label_set: also give, as `Prediction.label_set`, labels that contain the right one with this
            probability, e.g. 0.95; see `cascade.guarantees.conformal_sets`.
        top_k: how many (label, probability) pairs `Prediction.top` holds.
        ask: ``"router"`` asks experts where it pays, ``"never"`` uses the general model alone,
            ``"always"`` asks every expert about every photo.
        workers: photos are worked on by this many threads; None means one per core.
        max_pixels: larger photos become rows with the error ``too_many_pixels``.
        variant: which graphs of the bundle run: ``"exact"``, another that it has, or ``"auto"`` for the
            fastest that computes correctly on this machine, see `cascade.bundle.variants`.

    Raises:
        BundleError: when the bundle is missing, damaged or does not fit together.
        UsageError: when an argument makes no sense.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        operating_point: str = "default",
        max_error: float | None = None,
        budget: float | None = None,
        label_set: float | None = None,
        top_k: int = 5,
        ask: str = "router",
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
        variant: str = "auto",
    ) -> None:
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self.variant = _variant(loaded) if variant == "auto" else variant
        self.bundle = loaded.with_variant(self.variant)
        choice = choose_point(
            self.bundle,
            operating_point=operating_point,
            max_error=max_error,
            budget=budget,
            label_set=label_set,
            ask=ask,
        )
        self.operating_point, self.promise, self.budget = choice
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; it must be at least 1")
        if workers is not None and workers < 1:
            raise UsageError(f"workers is {workers}; it must be at least 1")
        self.ask = ask
        self.top_k = min(top_k, len(self.bundle.tree.labels))
        self.label_set = label_set
        if label_set is not None:
            _label_sets(self.bundle).threshold(label_set)  # refuses what cannot be given
        self.workers = workers or usable_cores()
        self.max_pixels = max_pixels
        self._lock = threading.Lock()
        self._sessions: dict[str, GraphSession] = {}
        self._session(self.bundle.general)
        self._session(self.bundle.arbiter)
        self._expert_costs = np.array([e.cost for e in self.bundle.experts], dtype=np.float64)

    def __repr__(self) -> str:
        return f"Cascade(bundle={str(self.bundle.folder)!r}, version={self.bundle.version!r})"

    def predict(self, image: ImageSource) -> Prediction:
        """Classify one photo.

        Args:
            image: a path, bytes, a binary file object, a PIL image, or a uint8 RGB array (H, W, 3).

        Returns:
            A `Prediction`; a photo that cannot be read has ``status == "error"`` and a reason, see
            `Prediction.raise_for_error`.

        Raises:
            UsageError: when ``image`` is of a type that is no photo.
        """
        return self._predict_chunk([image])[0]

    def predict_many(self, images: Iterable[ImageSource], *, batch_size: int = 16) -> Iterator[Prediction]:
        """Classify a stream of photos; answers come in the same order, while the stream is still read.

        At most ``3 * workers * batch_size`` photos are held at a time, however long the stream is.

        Args:
            images: what `predict` takes, any number of them.
            batch_size: photos that a worker takes at once. It changes speed, not answers.

        Raises:
            UsageError: when ``batch_size`` is below 1 or an item is of a type that is no photo.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        return self._stream(iter(images), batch_size)

    def _stream(self, images: Iterator[ImageSource], batch_size: int) -> Iterator[Prediction]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="cascade")
        pending: deque[Future[list[Prediction]]] = deque()
        try:
            # Chunks grow from one photo to a full batch, so that the first answers come at once.
            size = 1
            while chunk := list(islice(images, size)):
                pending.append(pool.submit(self._predict_chunk, chunk))
                size = min(size * 2, batch_size)
                while len(pending) > 2 * self.workers or (pending and pending[0].done()):
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _predict_chunk(self, images: Sequence[ImageSource]) -> list[Prediction]:
        photos = self.prepare_photos(images)
        rows = {position: _error_row(images[position], error, ms) for position, error, ms in photos.failed}
        if photos.positions:
            outputs = self.run_stages(photos.inputs)
            for row, position in enumerate(photos.positions):
                rows[position] = self._answer(images[position], outputs, row, photos)
        return [rows[position] for position in range(len(images))]

    def prepare_photos(self, images: Iterable[ImageSource]) -> PreparedPhotos:
        """Decode each photo once and make the input of every stage. Evaluation builds on this.

        Raises:
            UsageError: when an item is of a type that is no photo.
        """
        bundle = self.bundle
        stages = (bundle.general, *bundle.experts)
        arrays: dict[InputSpec, list[npt.NDArray[np.uint8]]] = {s.input: [] for s in stages if s.input}
        positions, read_ms, warnings, failed = [], [], [], []
        for position, source in enumerate(images):
            started = time.perf_counter()
            odd: list[str] = []
            try:
                image = load_image(
                    source,
                    target=bundle.decode_target,
                    reducing_gap=bundle.reducing_gap,
                    max_pixels=self.max_pixels,
                    on_warning=odd.append,
                )
            except ImageError as error:
                failed.append((position, error, (time.perf_counter() - started) * 1e3))
                continue
            decoded = time.perf_counter()
            for spec, prepared in arrays.items():
                prepared.append(prepare(image, spec))
            positions.append(position)
            warnings.append(tuple(odd))
            read_ms.append(((decoded - started) * 1e3, (time.perf_counter() - decoded) * 1e3))
        inputs = {spec: np.stack(prepared) for spec, prepared in arrays.items() if prepared}
        return PreparedPhotos(inputs, tuple(positions), tuple(read_ms), tuple(warnings), tuple(failed))

    def run_stages(
        self, inputs: dict[InputSpec, npt.NDArray[np.uint8]], *, ask: str | None = None
    ) -> StageOutputs:
        """Run every stage on prepared photos and return what each said. Evaluation builds on this.

        Args:
            inputs: input specification -> uint8 (N, H, W, 3), for every specification that a stage of the
                bundle has.
            ask: overrides the ``ask`` of the constructor.
        """
        bundle, out = self.bundle, StageOutputs()
        general_input = bundle.general.input
        assert general_input is not None  # Bundle checks it
        started = time.perf_counter()
        result = self._session(bundle.general).run_photos(inputs[general_input])
        out.general_logits, out.embedding = result["logits"], result["embedding"]
        started = _lap(out.seconds, "general", started)

        if bundle.scope is not None:
            feeds = {"general_logits": out.general_logits, "embedding": out.embedding}
            out.scope_score = self._session(bundle.scope).run(feeds)["score"][:, 0]
            started = _lap(out.seconds, "scope", started)

        out.gain = np.zeros((len(out.general_logits), len(bundle.experts)), dtype=np.float32)
        mode = ask or self.ask
        if bundle.router is not None and mode == "router":
            router = self._session(bundle.router)
            out.gain = router.run({"general_logits": out.general_logits})["gain"]
        out.asked = choose_experts(out.gain, self._expert_costs, self.operating_point.cost_weight, mode)
        started = _lap(out.seconds, "router", started)

        for column, expert in enumerate(bundle.experts):
            mine = out.asked[:, column]
            if mine.any():
                assert expert.input is not None
                taken = result[FEATURES] if expert.takes == FEATURES else inputs[expert.input]
                out.expert_logits[expert.name] = self._session(expert).run_photos(taken[mine])["logits"]
                started = _lap(out.seconds, expert.name, started)

        # With nobody asked, the arbiter is the calibrated general model.
        out.general_probabilities = self._arbitrate(out, np.zeros_like(out.asked))
        out.probabilities = self._arbitrate(out, out.asked) if out.asked.any() else out.general_probabilities
        _lap(out.seconds, "arbiter", started)
        return out

    def _arbitrate(self, out: StageOutputs, asked: npt.NDArray[np.bool_]) -> FloatArray:
        widths = {expert.name: len(expert.labels) for expert in self.bundle.experts}
        said = out.expert_logits if asked.any() else {}
        feeds = arbiter_feeds(out.general_logits, said, asked, widths)
        return self._session(self.bundle.arbiter).run(feeds)["probabilities"]

    def _answer(
        self, source: ImageSource, outputs: StageOutputs, row: int, photos: PreparedPhotos
    ) -> Prediction:
        bundle, labels = self.bundle, self.bundle.tree.labels
        probabilities = outputs.probabilities[row]
        scope_score = None if outputs.scope_score is None else float(outputs.scope_score[row])
        decision = decide(probabilities, bundle.tree, self.operating_point, scope_score)
        order = np.argsort(-probabilities, kind="stable")[: self.top_k]
        opinions = []
        count = len(outputs.asked)
        ms = dict(zip(("decode", "preprocess"), photos.read_ms[row], strict=True))
        ms["general"] = outputs.seconds["general"] * 1e3 / count
        if scope_score is not None:
            ms["scope"] = outputs.seconds["scope"] * 1e3 / count
        ms["router"] = outputs.seconds["router"] * 1e3 / count
        for column, expert in enumerate(bundle.experts):
            if outputs.asked[row, column]:
                logits = outputs.expert_logits[expert.name]
                position = int(outputs.asked[:row, column].sum())
                odds = np.exp(logits[position] - logits[position].max())
                opinions.append(Opinion.of(expert.name, expert.labels, odds / odds.sum()))
                ms[expert.name] = outputs.seconds[expert.name] * 1e3 / len(logits)
        ms["arbiter"] = outputs.seconds["arbiter"] * 1e3 / count
        ms["total"] = sum(ms.values())
        return Prediction(
            path=_path_of(source),
            label=decision.label,
            parent=decision.parent,
            confidence=min(decision.confidence, 1.0),
            reason=decision.reason,
            top=tuple((labels[i], float(probabilities[i])) for i in order),
            general=Opinion.of("general", labels, outputs.general_probabilities[row]),
            experts=tuple(opinions),
            warnings=photos.warnings[row],
            ms=ms,
            label_set=self._label_set(probabilities),
            scope_score=scope_score,
        )

    def _label_set(self, probabilities: FloatArray) -> tuple[str, ...]:
        if self.label_set is None:
            return ()
        columns = _label_sets(self.bundle).columns(probabilities, self.label_set)
        return tuple(self.bundle.tree.labels[column] for column in columns)

    def _session(self, stage: Stage) -> GraphSession:
        session = self._sessions.get(stage.name)
        if session is None:
            with self._lock:
                if stage.name not in self._sessions:
                    self._sessions[stage.name] = self._open(stage)
                session = self._sessions[stage.name]
        return session

    def _open(self, stage: Stage) -> GraphSession:
        if stage is self.bundle.router:
            return self.bundle.open_router()
        if stage is self.bundle.arbiter:
            return self.bundle.open_arbiter()
        if stage is self.bundle.scope:
            return self.bundle.open_scope()
        return self.bundle.open_image_stage(stage)


def _variant(bundle: Bundle) -> str:
    from cascade.bundle.variants import choose_variant  # which builds classifiers to try the variants

    return choose_variant(bundle).variant


def _label_sets(bundle: Bundle) -> LabelSets:
    if bundle.label_sets is None:
        raise UsageError(f"the bundle {bundle.name!r} was made without the numbers of label sets")
    return bundle.label_sets


def _lap(seconds: dict[str, float], stage: str, started: float) -> float:
    now = time.perf_counter()
    seconds[stage] = now - started
    return now


def _path_of(source: Any) -> str | None:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def _error_row(source: ImageSource, error: ImageError, ms: float) -> Prediction:
    return Prediction(
        path=_path_of(source),
        status="error",
        error=ErrorInfo(error.code, error.message),
        ms={"decode": ms, "total": ms},
    )
