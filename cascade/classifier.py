"""Classifies photos with a bundle: `Cascade` joins the pipeline and the policy.

    image -> prepare -> general -> scope, router -> experts -> arbiter -> policy -> Prediction

Several workers run side by side, one per core, each graph on one thread. Answers come in the order in which
the photos went in.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cascade import arguments
from cascade.arrays import Float32s, Pixels, softmax
from cascade.bundle.manifest import Bundle
from cascade.errors import ImageError, UsageError
from cascade.guarantees.conformal_sets import LabelSets
from cascade.imaging.decoding import MAX_PIXELS, ImageSource
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.cpu import usable_cores
from cascade.inference.operating_point import choose_point
from cascade.inference.parallel import map_batches
from cascade.inference.pipeline import Pipeline, PreparedPhotos, StageOutputs
from cascade.inference.variants import AUTO, choose_variant
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
            fastest that computes correctly on this machine, see `cascade.inference.variants`.

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
        workers = None if workers is None else arguments.count("workers", workers)
        self.max_pixels = arguments.count("max_pixels", max_pixels)
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        # What a copy is opened with; "auto" stays "auto", because it may be opened on another machine.
        self._opened_with = {"ask": ask, "workers": workers, "max_pixels": max_pixels, "variant": variant}
        self.variant = choose_variant(loaded).variant if variant == AUTO else variant
        self.bundle = loaded.with_variant(self.variant)
        self.ask = ask
        self._choose(operating_point, max_error, budget, label_set, top_k)
        self.workers = workers or usable_cores()
        self.pipeline = Pipeline.of(self.bundle)
        for stage in (self.bundle.general, self.bundle.arbiter):
            self.pipeline.session(stage)  # loads it, so that a damaged bundle is noticed now

    def _choose(
        self,
        operating_point: str,
        max_error: float | None,
        budget: float | None,
        label_set: float | None,
        top_k: int,
    ) -> None:
        """Set what decides about answers; nothing here needs a graph."""
        max_error = arguments.share("max_error", max_error)
        budget = arguments.share("budget", budget)
        label_set = arguments.share("label_set", label_set)
        top_k = arguments.count("top_k", top_k)
        self._chosen = {
            "operating_point": operating_point,
            "max_error": max_error,
            "budget": budget,
            "label_set": label_set,
            "top_k": top_k,
        }
        self.operating_point, self.promise, self.budget = choose_point(
            self.bundle,
            operating_point=operating_point,
            max_error=max_error,
            budget=budget,
            label_set=label_set,
            ask=self.ask,
        )
        self.top_k = min(top_k, len(self.bundle.tree.labels))
        self.label_set = label_set
        if label_set is not None:
            _label_sets(self.bundle).threshold(label_set)  # refuses what cannot be given

    def with_options(
        self,
        *,
        operating_point: str = "default",
        max_error: float | None = None,
        budget: float | None = None,
        label_set: float | None = None,
        top_k: int = 5,
    ) -> Cascade:
        """Return a classifier with other options that shares the loaded graphs; it costs next to nothing.

        The arguments are those of the constructor.

        Raises:
            UsageError: when an argument makes no sense, or the bundle cannot give what is asked for.
        """
        other = copy.copy(self)
        other._choose(operating_point, max_error, budget, label_set, top_k)
        return other

    def __repr__(self) -> str:
        return f"Cascade(bundle={str(self.bundle.folder)!r}, version={self.bundle.version!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as the folder of the bundle and the arguments: the copy opens the bundle again."""
        return _open, (str(self.bundle.folder.resolve()), self._opened_with | self._chosen)

    def __copy__(self) -> Cascade:
        """Share the loaded graphs."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

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
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[ImageSource]) -> list[Prediction]:
        """Classify a few photos together, in this thread, and return their predictions in order.

        For callers that have threads of their own; `predict_many` is for long streams.

        Raises:
            UsageError: when an item is of a type that is no photo.
        """
        photos = self.prepare_photos(images)
        rows = {position: _error_row(images[position], error, ms) for position, error, ms in photos.failed}
        if photos.positions:
            outputs = self.run_stages(photos.inputs)
            for row, position in enumerate(photos.positions):
                rows[position] = self._answer(images[position], outputs, row, photos)
        return [rows[position] for position in range(len(images))]

    def predict_many(self, images: Iterable[ImageSource], *, batch_size: int = 16) -> Iterator[Prediction]:
        """Classify a stream of photos; answers come in the same order, while the stream is still read.

        At most ``3 * workers * batch_size`` photos are held at a time, however long the stream is.

        Args:
            images: what `predict` takes, any number of them.
            batch_size: photos that a worker takes at once. It changes speed, not answers.

        Raises:
            UsageError: when ``images`` is one photo, ``batch_size`` is below 1 or an item is of a
                type that is no photo.
        """
        batch_size = arguments.count("batch_size", batch_size)
        photos = arguments.photos(images)
        batches = map_batches(
            self.predict_batch, photos, workers=self.workers, batch_size=batch_size, bytes_of=_bytes_of
        )
        return (prediction for batch in batches for prediction in batch)

    def warm_up(self) -> None:
        """Load every graph and run it once, so that the first photo is as fast as every other."""
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        self.run_stages(self.prepare_photos([grey]).inputs, ask="always")

    def prepare_photos(self, images: Iterable[ImageSource]) -> PreparedPhotos:
        """Decode photos as `predict` does; see `cascade.inference.pipeline.Pipeline.prepare`."""
        return self.pipeline.prepare(images, max_pixels=self.max_pixels)

    def run_stages(self, inputs: Mapping[InputSpec, Pixels], *, ask: str | None = None) -> StageOutputs:
        """Run the stages as `predict` does; see `cascade.inference.pipeline.Pipeline.run`.

        Args:
            inputs: input specification -> uint8 (N, H, W, 3), as `prepare_photos` gives them.
            ask: overrides the ``ask`` of the constructor.
        """
        return self.pipeline.run(inputs, ask=ask or self.ask, cost_weight=self.operating_point.cost_weight)

    def _answer(
        self, source: ImageSource, outputs: StageOutputs, row: int, photos: PreparedPhotos
    ) -> Prediction:
        bundle, labels = self.bundle, self.bundle.tree.labels
        probabilities = outputs.probabilities[row]
        scope_score = None if outputs.scope_score is None else float(outputs.scope_score[row])
        decision = decide(probabilities, bundle.tree, self.operating_point, scope_score)
        order = np.argsort(-probabilities, kind="stable")[: self.top_k]
        opinions = []
        count = len(outputs)
        ms = dict(zip(("decode", "preprocess"), photos.read_ms[row], strict=True))
        ms["general"] = outputs.seconds["general"] * 1e3 / count
        if scope_score is not None:
            ms["scope"] = outputs.seconds["scope"] * 1e3 / count
        ms["router"] = outputs.seconds["router"] * 1e3 / count
        for column, expert in enumerate(bundle.experts):
            if outputs.deferred[row, column]:
                logits = outputs.expert_logits[expert.name]
                position = int(outputs.deferred[:row, column].sum())
                opinions.append(Opinion.of(expert.name, expert.labels, softmax(logits[position])))
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

    def _label_set(self, probabilities: Float32s) -> tuple[str, ...]:
        if self.label_set is None:
            return ()
        columns = _label_sets(self.bundle).columns(probabilities, self.label_set)
        return tuple(self.bundle.tree.labels[column] for column in columns)


def _open(folder: str, made_with: Mapping[str, Any]) -> Cascade:
    return Cascade(folder, **made_with)


def _label_sets(bundle: Bundle) -> LabelSets:
    if bundle.label_sets is None:
        raise UsageError(f"the bundle {bundle.name!r} was made without the numbers of label sets")
    return bundle.label_sets


def _bytes_of(source: Any) -> int:
    return len(source) if isinstance(source, bytes | bytearray | memoryview) else 0


def _path_of(source: Any) -> str | None:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def _error_row(source: ImageSource, error: ImageError, ms: float) -> Prediction:
    return Prediction(
        path=_path_of(source),
        status="error",
        error=ErrorInfo(error.code, error.message),
        ms={"decode": ms, "total": ms},
    )
