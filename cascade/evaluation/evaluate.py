"""Evaluating a bundle. In: a bundle and labelled photos. Out: an `Evaluation`, what every stage said of each.

Every photo is decoded once and every expert is asked about it once. The three ways that are compared,
general model alone, cascade, and all experts always, are then read off the same outputs, so that they differ
in nothing but in who was listened to.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cascade.bundle.manifest import Bundle
from cascade.classifier import Cascade
from cascade.errors import DataError, UsageError
from cascade.evaluation.dataset import SPLITS, Dataset, Photo, scan
from cascade.evaluation.results import WAYS, CurvePoint, Evaluation, cost_per_photo
from cascade.inference.arbitration import arbiter_feeds
from cascade.inference.routing import choose_experts
from cascade.prediction import ErrorInfo

__all__ = ["Evaluation", "Progress", "evaluate", "evaluate_folder"]

#: Called with the number of photos done and the number of all photos.
Progress = Callable[[int, int], None]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_CURVE_POINTS: Final = 24
_ORIENTATION: Final = 0x0112


def evaluate(
    cascade: Cascade,
    photos: Sequence[Photo],
    *,
    dropped: Sequence[tuple[Path, str]] = (),
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a bundle on labelled photos.

    Args:
        cascade: its bundle and operating point are evaluated; its ``ask`` is not used.
        photos: their labels must be leaves of the bundle. Photos that cannot be read are counted and listed.
        dropped: handed on to the result.
        batch_size: photos that a worker takes at once. It changes speed, not figures.
        progress: called after every batch.

    Raises:
        DataError: when a label is not the bundle's, or no photo can be read.
        UsageError: when ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    bundle = cascade.bundle
    if not photos:
        raise DataError("there are no photos to evaluate; give a folder with LABEL/FILE below it")
    _check_labels(bundle, photos)
    chunks = [photos[start : start + batch_size] for start in range(0, len(photos), batch_size)]
    read: list[Photo] = []
    failed: list[tuple[Photo, ErrorInfo]] = []
    sizes: list[tuple[int, int]] = []
    general: list[FloatArray] = []
    scope: list[FloatArray] = []
    experts: dict[str, list[FloatArray]] = {expert.name: [] for expert in bundle.experts}
    pool = ThreadPoolExecutor(cascade.workers, thread_name_prefix="cascade")
    try:
        done = 0
        for chunk, said in zip(chunks, pool.map(lambda c: _ask_everybody(cascade, c), chunks), strict=True):
            failed += [(chunk[position], why) for position, why in said.failed]
            if said.positions:
                read += [chunk[position] for position in said.positions]
                sizes += said.sizes
                general.append(said.general_logits)
                scope += [] if said.scope_score is None else [said.scope_score]
                for name, parts in experts.items():
                    parts.append(said.expert_logits[name])
            done += len(chunk)
            if progress is not None:
                progress(done, len(photos))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if not read:
        photo, why = failed[0]
        raise DataError(
            f"none of the {len(photos)} photos could be read; the first: {photo.path}: {why.message}"
        )
    return _listen(
        cascade,
        tuple(read),
        tuple(failed),
        tuple(dropped),
        np.array(sizes, dtype=np.int64),
        np.concatenate(general),
        {name: np.concatenate(parts) for name, parts in experts.items()},
        np.concatenate(scope) if scope else None,
    )


def evaluate_folder(
    data: Path,
    *,
    bundle: Path | None = None,
    split: str = "test",
    operating_point: str = "default",
    max_error: float | None = None,
    budget: float | None = None,
    variant: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a bundle on a folder of labelled photos; what `cascade evaluate` does.

    Args:
        data: DATA/{train,calibration,test}/LABEL/FILE, of which one split is taken, or DATA/LABEL/FILE, which
            is taken whole.
        bundle: folder of the bundle; None looks where `cascade.bundle.manifest.find_bundle` says.
        split: one of `cascade.evaluation.dataset.SPLITS`; without meaning for the second layout.
        operating_point: name of the bundle's operating point.
        max_error: instead of it, see `cascade.Cascade`.
        budget: likewise.
        variant: which graphs of the bundle run, see `Cascade`.
        progress: called after every batch.

    Raises:
        BundleError: when the bundle cannot be used.
        DataError: when the folder or its labels do not fit.
        UsageError: for an unknown split or operating point.
    """
    if split not in SPLITS:
        raise UsageError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
    cascade = Cascade(
        bundle, operating_point=operating_point, max_error=max_error, budget=budget, variant=variant
    )
    dataset = scan(data)
    return evaluate(cascade, _chosen(dataset, split), dropped=dataset.dropped, progress=progress)


@dataclass(frozen=True, slots=True)
class _Said:
    """Of one batch: places and sizes of the photos that were read, everybody's logits, failures."""

    positions: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    failed: tuple[tuple[int, ErrorInfo], ...]
    general_logits: FloatArray
    expert_logits: dict[str, FloatArray]
    scope_score: FloatArray | None


def _ask_everybody(cascade: Cascade, photos: Sequence[Photo]) -> _Said:
    prepared = cascade.prepare_photos([photo.path for photo in photos])
    failed = tuple((place, ErrorInfo(error.code, error.message)) for place, error, _ in prepared.failed)
    if not prepared.positions:
        return _Said((), (), failed, np.zeros((0, 0), dtype=np.float32), {}, None)
    outputs = cascade.run_stages(prepared.inputs, ask="always")
    sizes = tuple(_upright_size(photos[position].path) for position in prepared.positions)
    return _Said(
        prepared.positions,
        sizes,
        failed,
        outputs.general_logits,
        outputs.expert_logits,
        outputs.scope_score,
    )


def _listen(
    cascade: Cascade,
    photos: tuple[Photo, ...],
    failed: tuple[tuple[Photo, ErrorInfo], ...],
    dropped: tuple[tuple[Path, str], ...],
    sizes: npt.NDArray[np.int64],
    general_logits: FloatArray,
    expert_logits: dict[str, FloatArray],
    scope_score: FloatArray | None,
) -> Evaluation:
    """Read every way off the outputs of everybody."""
    bundle, point = cascade.bundle, cascade.operating_point
    arbiter = bundle.open_arbiter()
    widths = {expert.name: len(expert.labels) for expert in bundle.experts}
    costs = np.array([expert.cost for expert in bundle.experts], dtype=np.float64)

    def arbitrate(asked: BoolArray) -> FloatArray:
        said = {name: expert_logits[name][asked[:, column]] for column, name in enumerate(widths)}
        return arbiter.run(arbiter_feeds(general_logits, said, asked, widths))["probabilities"]

    gain = np.zeros((len(photos), len(widths)), dtype=np.float32)
    if bundle.router is not None:
        gain = bundle.open_router().run({"general_logits": general_logits})["gain"]
    asked = {
        way: choose_experts(gain, costs, point.cost_weight, mode)
        for way, mode in (("general", "never"), ("cascade", "router"), ("always", "always"))
    }
    without = {}
    for column, name in enumerate(widths):
        others = asked["cascade"].copy()
        others[:, column] = False
        without[name] = arbitrate(others)
    columns = {label: column for column, label in enumerate(bundle.tree.labels)}
    truth = np.array([columns[photo.label] for photo in photos], dtype=np.int64)
    curve = []
    steps = {step.cost_weight: step.budget for step in bundle.budget.points} if bundle.budget else {}
    for weight in steps or _cost_weights(gain, costs):
        chosen = choose_experts(gain, costs, weight)
        curve.append(
            CurvePoint(
                cost_weight=weight,
                cost=float(cost_per_photo(bundle, chosen).mean()),
                deferral_rate=float(chosen.any(axis=1).mean()),
                accuracy=float((arbitrate(chosen).argmax(axis=1) == truth).mean()),
                budget=steps.get(weight),
            )
        )
    return Evaluation(
        bundle=bundle,
        point=point,
        photos=photos,
        failed=failed,
        dropped=dropped,
        sizes=sizes,
        truth=truth,
        gain=gain,
        expert_logits=expert_logits,
        asked=asked,
        probabilities={way: arbitrate(asked[way]) for way in WAYS},
        without=without,
        curve=tuple(curve),
        scope_score=scope_score,
    )


def _cost_weights(gain: FloatArray, costs: npt.NDArray[np.float64]) -> list[float]:
    """Return prices, the dearest first, that spread the curve evenly over the share of photos."""
    if not gain.size:
        return []
    best = (gain / costs).max(axis=1)
    worth = best[best > 0]
    inside = np.quantile(worth, np.linspace(1, 0, _CURVE_POINTS)[:-1]).tolist() if worth.size else []
    return list(dict.fromkeys([*inside, 0.0]))


def _upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of a photo that was read before; only its header is read again."""
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) else (width, height)


def _chosen(dataset: Dataset, split: str) -> tuple[Photo, ...]:
    """Return one split, or all photos if the folder has no splits: `scan` would invent them."""
    present = [name for name in SPLITS if (dataset.folder / name).is_dir()]
    if not present:
        return dataset.photos
    photos = dataset.split(split)
    if not photos:
        raise DataError(
            f"{dataset.folder}: has no photos in {split}/; take another split with --split "
            f"({', '.join(name for name in present if dataset.split(name))})"
        )
    return photos


def _check_labels(bundle: Bundle, photos: Sequence[Photo]) -> None:
    known = bundle.tree.labels
    unknown = sorted({photo.label for photo in photos} - set(known))
    if not unknown:
        return
    hints = []
    for label in unknown:
        near = difflib.get_close_matches(label.lower(), known, n=1)
        hints.append(f"{label} (did you mean {near[0]}?)" if near else label)
    raise DataError(
        f"the bundle {bundle.name!r} does not know these labels: {', '.join(hints)}; it knows "
        f"{', '.join(known)}. Rename the folders, move them away, or give --bundle DIR"
    )
