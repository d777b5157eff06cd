"""Runs a bundle on labelled photos and compares the general model alone, the cascade, and all experts always.

Every photo is decoded once and passed to every expert once. All three are then computed from the same
outputs, so that they differ in nothing but in the experts that count.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from cascade.arrays import Bools, Float32s, Float64s
from cascade.bundle.manifest import Bundle
from cascade.classifier import Cascade
from cascade.errors import DataError, UsageError
from cascade.evaluation.dataset import SPLITS, Dataset, Photo, scan
from cascade.evaluation.results import SYSTEMS, CurvePoint, Evaluation, cost_per_photo
from cascade.imaging.formats import identify
from cascade.inference.parallel import map_batches
from cascade.inference.pipeline import PreparedPhotos, StageOutputs
from cascade.inference.routing import choose_experts
from cascade.prediction import ErrorInfo

__all__ = ["Evaluation", "Progress", "evaluate", "evaluate_folder"]

#: Called with the number of photos done and the number of all photos.
Progress = Callable[[int, int], None]

_CURVE_POINTS: Final = 24
_ORIENTATION: Final = 0x0112
_MADE_WITH: Final = "the bundle was made with it"


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
        batch_size: photos that a worker takes at once. It changes the speed, not the results.
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
    read: list[Photo] = []
    failed: list[tuple[Photo, ErrorInfo]] = []
    sizes: list[tuple[int, int]] = []
    outputs: list[StageOutputs] = []
    done = 0
    batches = map_batches(
        partial(_run_batch, cascade), photos, workers=cascade.workers, batch_size=batch_size
    )
    for prepared, out, their_sizes in batches:
        failed += [
            (photos[done + place], ErrorInfo(error.code, error.message))
            for place, error, _ in prepared.failed
        ]
        read += [photos[done + place] for place in prepared.positions]
        sizes += their_sizes
        outputs += [] if out is None else [out]
        done += len(prepared.positions) + len(prepared.failed)
        if progress is not None:
            progress(done, len(photos))
    if not read:
        photo, why = failed[0]
        raise DataError(
            f"none of the {len(photos)} photos could be read; the first: {photo.path}: {why.message}"
        )
    return _compare(cascade, read, failed, dropped, sizes, outputs)


def evaluate_folder(
    data: Path | Sequence[Path],
    *,
    bundle: Path | None = None,
    split: str = "test",
    operating_point: str = "default",
    max_error: float | None = None,
    budget: float | None = None,
    variant: str = "auto",
    label_map: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a bundle on a folder of labelled photos; what `cascade evaluate` does.

    Args:
        data: DATA/{train,calibration,test}/LABEL/FILE, of which one split is taken, or DATA/LABEL/FILE, which
            is taken whole, but for the photos that the bundle was made with; or several such folders, all of
            one layout.
        bundle: folder of the bundle; None looks where `cascade.bundle.manifest.find_bundle` says.
        split: one of `cascade.evaluation.dataset.SPLITS`; without meaning for the second layout.
        operating_point: name of the bundle's operating point.
        max_error: instead of it, see `cascade.Cascade`.
        budget: likewise.
        variant: which graphs of the bundle run, see `Cascade`.
        label_map: name of a folder -> label that it stands for.
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
    dataset = scan(data, label_map=label_map)
    folders = [data] if isinstance(data, Path) else list(data)
    chosen = _chosen(dataset, folders, split)
    if chosen == dataset.photos:
        learned = _made_with(cascade.bundle, dataset)
        chosen = tuple(photo for photo in chosen if photo not in learned)
        dataset = replace(dataset, dropped=(*dataset.dropped, *((p.path, _MADE_WITH) for p in learned)))
    return evaluate(cascade, chosen, dropped=dataset.dropped, progress=progress)


def _run_batch(
    cascade: Cascade, photos: Sequence[Photo]
) -> tuple[PreparedPhotos, StageOutputs | None, list[tuple[int, int]]]:
    """Return how reading went, what every expert computed, and the sizes of the photos that were read."""
    prepared = cascade.prepare_photos([photo.path for photo in photos])
    if not prepared.positions:
        return prepared, None, []
    sizes = [_upright_size(photos[position].path) for position in prepared.positions]
    return prepared, cascade.run_stages(prepared.inputs, ask="always"), sizes


def _compare(
    cascade: Cascade,
    photos: Sequence[Photo],
    failed: Sequence[tuple[Photo, ErrorInfo]],
    dropped: Sequence[tuple[Path, str]],
    sizes: Sequence[tuple[int, int]],
    outputs: Sequence[StageOutputs],
) -> Evaluation:
    """Compute the answers of each system from the outputs of every stage."""
    bundle, point, pipeline = cascade.bundle, cascade.operating_point, cascade.pipeline
    names = [expert.name for expert in bundle.experts]
    costs = np.array([expert.cost for expert in bundle.experts], dtype=np.float64)
    general_logits = np.concatenate([out.general_logits for out in outputs])
    expert_logits = {name: np.concatenate([out.expert_logits[name] for out in outputs]) for name in names}
    scopes = [out.scope_score for out in outputs if out.scope_score is not None]

    def arbitrate(deferred: Bools) -> Float32s:
        heard = {name: expert_logits[name][deferred[:, column]] for column, name in enumerate(names)}
        return pipeline.arbitrate(general_logits, heard, deferred)

    gain = pipeline.gain(general_logits)
    deferred = {
        system: choose_experts(gain, costs, point.cost_weight, mode)
        for system, mode in (("general", "never"), ("cascade", "router"), ("always", "always"))
    }
    without = {name: arbitrate(_leave_out(deferred["cascade"], column)) for column, name in enumerate(names)}
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
        photos=tuple(photos),
        failed=tuple(failed),
        dropped=tuple(dropped),
        sizes=np.array(sizes, dtype=np.int64),
        truth=truth,
        gain=gain,
        expert_logits=expert_logits,
        deferred=deferred,
        probabilities={system: arbitrate(deferred[system]) for system in SYSTEMS},
        without=without,
        curve=tuple(curve),
        scope_score=np.concatenate(scopes) if scopes else None,
    )


def _leave_out(deferred: Bools, column: int) -> Bools:
    """Return the deferrals, (N, E), without those to one expert."""
    others = deferred.copy()
    others[:, column] = False
    return others


def _cost_weights(gain: Float32s, costs: Float64s) -> list[float]:
    """Return prices, the dearest first, that spread the curve evenly over the share of photos."""
    if not gain.size:
        return []
    best = (gain / costs).max(axis=1)
    worth = best[best > 0]
    inside = np.quantile(worth, np.linspace(1, 0, _CURVE_POINTS)[:-1]).tolist() if worth.size else []
    return list(dict.fromkeys([*inside, 0.0]))


def _upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of a photo that was read before; only its header is read again."""
    # Not by `Image.open`: what was read may be a photo that only our own decoders know, such as HEIC.
    with path.open("rb") as file, identify(file) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) else (width, height)


def _chosen(dataset: Dataset, folders: Sequence[Path], split: str) -> tuple[Photo, ...]:
    """Return one split, or all photos if the folders have no splits: `scan` would invent them."""
    present = [name for name in SPLITS if any((folder / name).is_dir() for folder in folders)]
    if not present:
        return dataset.photos
    photos = dataset.split(split)
    if not photos:
        raise DataError(
            f"{dataset.folder}: has no photos in {split}/; take another split with --split "
            f"({', '.join(name for name in present if dataset.split(name))})"
        )
    return photos


def _made_with(bundle: Bundle, dataset: Dataset) -> tuple[Photo, ...]:
    """Return the photos that trained or calibrated a bundle, if it was made with this very folder.

    Such a folder was split by the hashes of its files; what it set aside as `test` is left.
    """
    made = bundle.provenance
    for facts in (made, made.get("calibrated"), made.get("learned")):
        data = facts.get("data") if isinstance(facts, Mapping) else None
        if not isinstance(data, Mapping):  # what somebody else wrote there
            continue
        unreadable = {path for path, _ in data.get("left_out", ())}
        same = [p for p in dataset.photos if p.path.relative_to(dataset.folder).as_posix() not in unreadable]
        if data.get("fingerprint") == Dataset(dataset.folder, tuple(same), ()).fingerprint():
            return tuple(photo for photo in dataset.photos if photo.split != "test")
    return ()


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
        f"{', '.join(known)}. Say what they stand for with --label-map FOLDER=LABEL, move them away, or give "
        "--bundle DIR"
    )
