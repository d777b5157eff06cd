"""`cascade train`, from photos and recipes to a bundle. In: two folders. Out: a third.

    scan -> for every recipe: fit -> export -> outputs on `calibration` -> calibrate -> graphs -> pack
         -> measure on `test`

Every step leaves its result in the working folder; the same command goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

import cascade
from cascade.bundle import Bundle
from cascade.classifier import usable_cores
from cascade.dataset import Dataset, Photo, scan
from cascade.errors import DataError, ImageError, UsageError
from cascade.images import load_image
from cascade.labels import NOT_MINE, LabelTree
from cascade.preprocess import InputSpec, prepare
from cascade.session import GraphSession
from cascade.training.backbone import Network
from cascade.training.calibrate import Outputs, calibrate
from cascade.training.card import model_card
from cascade.training.export import export_stage
from cascade.training.fit import fit
from cascade.training.graphs import arbiter_graph, router_graph
from cascade.training.guarantees import fit_guarantees
from cascade.training.measure import measure
from cascade.training.pack import (
    golden_photos,
    stage_entry,
    take_place,
    write_bundle,
    write_golden,
    write_policy,
)
from cascade.training.quantize import CALIBRATION_PHOTOS, quantize_stage
from cascade.training.recipe import Recipe, load_recipes
from cascade.training.report import Report
from cascade.training.scope import InScope

__all__ = ["floating_point_operations", "train"]

#: The graphs use opset 18; onnxruntime 1.20 is the oldest that the light install allows.
MINIMUM_ONNXRUNTIME: Final = "1.20"


def train(
    data: Path,
    recipes: Sequence[Path],
    out: Path,
    *,
    work: Path | None = None,
    only: Sequence[str] = (),
    wandb: str = "disabled",
    device: str | None = None,
    name: str | None = None,
    version: str = "0.1.0",
    max_error: float = 0.15,
    int8: bool = False,
) -> None:
    """Train every recipe and write a bundle.

    Args:
        data: labelled photos, see `cascade.dataset.scan`.
        recipes: recipe files or folders of them.
        out: folder of the bundle; replaced if it is one already.
        work: folder for caches and checkpoints; ``OUT.work`` if None.
        only: train just these recipes and write no bundle; for trying things out.
        wandb: see `cascade.training.report.Report`.
        device: ``"cpu"``, ``"cuda"``, ...; None takes a GPU when there is one.
        name: of the bundle; the name of ``out`` if None.
        version: of the bundle.
        max_error: share of wrong answers that the default operating point promises to keep below, or the
            smallest that can be promised if that is more; see `cascade.promise`.
        int8: also pack an int8 variant of every image stage, see `cascade.training.quantize`.

    Raises:
        DataError: when photos are missing or unusable.
        RecipeError: when a recipe is wrong.
        UsageError: when ``only`` names no recipe or the device does not exist.
    """
    stages = load_recipes(recipes)
    unknown = sorted(set(only) - {recipe.name for recipe in stages})
    if unknown:
        raise UsageError(
            f"--only {unknown[0]}: there is no such recipe; there are {', '.join(r.name for r in stages)}"
        )
    where = _device(device)
    _keep_freed_memory()
    work = work or out.with_name(out.name + ".work")
    general = stages[0]
    dataset = _readable(scan(data, general.labels), work)
    for split in ("train", "calibration"):
        if not dataset.split(split):
            raise DataError(f"{data}: there are no photos in the split {split!r}")
    config = {"recipes": {r.name: r.to_dict() for r in stages}, "data": dataset.fingerprint()}
    with Report(wandb=wandb, config=config) as report:
        _say_what_is_there(dataset, report)
        networks: dict[str, tuple[Network, tuple[dict[str, float], ...]]] = {}
        for recipe in stages:
            if not only or recipe.name in only:
                fitted = fit(recipe, dataset, work, device=where, report=report)
                networks[recipe.name] = fitted.network, fitted.history
        if only:
            report.line(f"trained {', '.join(networks)}; run again without --only for a bundle")
            return
        bundle = work / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.mkdir(parents=True)
        _pack(bundle, stages, networks, dataset, report, name or out.name, version, max_error, int8)
        take_place(bundle, out)
        report.line(f"wrote {out}; measure it with: cascade evaluate {data} --bundle {out}")


def _device(wanted: str | None) -> torch.device:
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"--device {wanted}: cannot be used here ({first}); try cpu") from error
    return device


def _keep_freed_memory() -> None:
    """Tell glibc not to hand large blocks back to the system after every step.

    Activations of a batch are tens of megabytes; fetching them anew each time costs a good part
    of a training step. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        top_pad, trim_threshold, mmap_max = -2, -1, -4  # from malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 512 * 2**20)


def _readable(dataset: Dataset, work: Path) -> Dataset:
    """Leave out photos that cannot be decoded; the verdict is remembered by content."""
    path = work / "unreadable.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}

    def check(photo: Photo) -> tuple[str, str]:
        if photo.sha256 not in known:
            try:
                load_image(photo.path, target=(64, 64))
            except ImageError as error:
                return photo.sha256, str(error)
            return photo.sha256, ""
        return photo.sha256, known[photo.sha256]

    with ThreadPoolExecutor(usable_cores()) as pool:
        known = dict(pool.map(check, dataset.photos))
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known))
    good = tuple(photo for photo in dataset.photos if not known[photo.sha256])
    bad = tuple((p.path, known[p.sha256]) for p in dataset.photos if known[p.sha256])
    return Dataset(dataset.folder, good, dataset.dropped + bad)


def _say_what_is_there(dataset: Dataset, report: Report) -> None:
    splits = Counter(photo.split for photo in dataset.photos)
    report.line(", ".join(f"{count} photos to {split}" for split, count in sorted(splits.items())))
    for path, reason in dataset.dropped[:20]:
        report.line(f"left out {path}: {reason}")
    if len(dataset.dropped) > 20:
        report.line(f"left out {len(dataset.dropped) - 20} more; bundle.json names them all")


def _pack(
    folder: Path,
    recipes: Sequence[Recipe],
    networks: Mapping[str, tuple[Network, tuple[dict[str, float], ...]]],
    dataset: Dataset,
    report: Report,
    name: str,
    version: str,
    max_error: float,
    int8: bool,
) -> None:
    general, experts = recipes[0], recipes[1:]
    tree = LabelTree(tuple(general.labels), dict(general.labels))
    own = {expert.name: tuple(expert.labels) for expert in experts}
    work = {r.name: floating_point_operations(networks[r.name][0], r.input) for r in recipes}
    costs = {key: round(value / work["general"], 4) for key, value in work.items()}
    entries: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        labels = [*recipe.labels, *([NOT_MINE] if recipe.kind == "expert" else [])]
        metadata = {
            "cascade.stage": recipe.name,
            "cascade.labels": json.dumps(labels),
            "cascade.input": json.dumps(recipe.input.to_dict()),
            "cascade.bundle": f"{name} {version}",
        }
        model = export_stage(
            networks[recipe.name][0],
            recipe.input,
            embedding=recipe.kind == "general",
            metadata=metadata,
        )
        entries[recipe.name] = stage_entry(
            model,
            recipe.name,
            folder,
            labels=labels,
            cost=costs[recipe.name],
            input=recipe.input.to_dict(),
        )
        report.line(
            f"{recipe.name}: exported, {(folder / f'{recipe.name}.onnx').stat().st_size / 1e6:.1f} MB"
        )
        if int8:
            full = export_stage(
                networks[recipe.name][0],
                recipe.input,
                embedding=recipe.kind == "general",
                metadata=metadata,
                half=False,
            )
            quantized = quantize_stage(
                full, _some_photos(dataset, recipe.input, general.train.seed), metadata
            )
            variant = stage_entry(quantized, f"{recipe.name}.int8", folder)
            entries[recipe.name]["variants"] = {"int8": variant}
            report.line(f"{recipe.name}: quantised")

    outputs, embedding = _outputs(folder, recipes, dataset.split("calibration"), report)
    seed = general.train.seed
    fitted = calibrate(outputs, tree, own, [costs[e.name] for e in experts], seed=seed)
    meta = {"cascade.bundle": f"{name} {version}", "cascade.labels": json.dumps(list(tree.labels))}
    guarantees = fit_guarantees(
        fitted,
        InScope(outputs.general, embedding, outputs.targets),
        tree,
        seed=seed,
        max_error=max_error,
        metadata={**meta, "cascade.stage": "scope"},
    )
    arbiter = arbiter_graph(fitted.arbiter, tree.labels, own, {**meta, "cascade.stage": "arbiter"})
    stages: dict[str, Any] = {
        "general": entries["general"],
        "experts": [{"name": e.name, **entries[e.name]} for e in experts],
        "router": None,
        "arbiter": stage_entry(arbiter, "arbiter", folder, labels=list(tree.labels)),
        "scope": stage_entry(guarantees.scope, "scope", folder, labels=["scope_score"]),
    }
    if fitted.router is not None:
        router = router_graph(fitted.router, tree.labels, own, {**meta, "cascade.stage": "router"})
        stages["router"] = stage_entry(router, "router", folder, labels=list(own))
    provenance = {
        "cascade": cascade.__version__,
        "recipes": {recipe.name: recipe.to_dict() for recipe in recipes},
        "data": {
            "fingerprint": dataset.fingerprint(),
            "photos": dict(Counter(photo.split for photo in dataset.photos)),
            "sources": dict(Counter(photo.source for photo in dataset.photos if photo.source)),
            "left_out": [[path.relative_to(dataset.folder).as_posix(), why] for path, why in dataset.dropped],
        },
        "licence": general.card.get("licence", ""),
        "packages": {"torch": torch.__version__, "onnx": onnx.__version__},
    }
    metrics = {
        "training": {key: list(history) for key, (_, history) in networks.items()},
        "calibration": fitted.facts | guarantees.facts,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    write_bundle(
        folder,
        name=name,
        version=version,
        labels=general.labels,
        stages=stages,
        operating_points={"default": guarantees.point.to_dict()},
        guarantees={
            "promise": guarantees.promise and guarantees.promise.to_dict(),
            "label_sets": guarantees.label_sets and guarantees.label_sets.to_dict(),
            "reference": guarantees.reference.to_dict(),
        },
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        provenance=provenance,
        measured={},
    )
    write_golden(folder, golden_photos())
    write_policy(folder)
    if dataset.split("test"):
        measured = measure(
            folder,
            dataset.split("test"),
            "test",
            lambda done, total: report.step("bundle", "measured on test photos", done, total),
        )
        report.line(f"cascade: {measured['ways']['cascade']['accuracy']:.1%} of the test photos are right")
        report.log({"measured": measured})
    (folder / "README.md").write_text(
        model_card(Bundle.load(folder), metrics, general.card), encoding="utf-8"
    )
    report.log({"calibration": metrics["calibration"]})


def _some_photos(dataset: Dataset, spec: InputSpec, seed: int) -> npt.NDArray[np.uint8]:
    """Return prepared training photos, uint8 (N, H, W, 3), for fixing the ranges of int8."""
    photos = dataset.split("train")
    chosen = np.random.default_rng(seed).permutation(len(photos))[:CALIBRATION_PHOTOS]
    target, gap = spec.decode_target, spec.reducing_gap
    return np.stack(
        [prepare(load_image(photos[i].path, target=target, reducing_gap=gap), spec) for i in chosen]
    )


def floating_point_operations(network: Network, spec: InputSpec) -> float:
    """Count the floating-point operations that one photo takes; the cost of a stage is their ratio.

    Counted and not timed, so that the same seed gives the same bundle.
    """
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, spec.height, spec.width))
    return float(counter.get_total_flops())


def _outputs(
    folder: Path, recipes: Sequence[Recipe], photos: Sequence[Photo], report: Report
) -> tuple[Outputs, npt.NDArray[np.float32]]:
    """Run the exported image stages on photos, read and prepared exactly as prediction does it.

    Returns everybody's logits and the general model's embedding, (N, D).
    """
    sessions = {}
    for recipe in recipes:
        names = ["logits", "embedding"] if recipe.kind == "general" else ["logits"]
        sessions[recipe.name] = GraphSession(folder / f"{recipe.name}.onnx", ["image"], names)
    target = (
        max(r.input.decode_target[0] for r in recipes),
        max(r.input.decode_target[1] for r in recipes),
    )
    gap = max(r.input.reducing_gap for r in recipes)

    def run(chunk: Sequence[Photo]) -> dict[str, npt.NDArray[Any]]:
        images = [load_image(photo.path, target=target, reducing_gap=gap) for photo in chunk]
        specs = {recipe.input for recipe in recipes}
        ready = {spec: np.stack([prepare(image, spec) for image in images]) for spec in specs}
        said = {r.name: sessions[r.name].run({"image": ready[r.input]}) for r in recipes}
        logits = {name: outputs["logits"] for name, outputs in said.items()}
        return logits | {"embedding": said["general"]["embedding"]}

    parts: dict[str, list[npt.NDArray[Any]]] = {"embedding": [], **{recipe.name: [] for recipe in recipes}}
    with ThreadPoolExecutor(usable_cores()) as pool:
        chunks = [list(chunk) for chunk in _chunks(photos, 16)]
        for done, result in enumerate(pool.map(run, chunks), 1):
            for key, value in result.items():
                parts[key].append(value)
            report.step("bundle", "outputs on calibration photos", done, len(chunks))
    logits = {key: np.concatenate(value) for key, value in parts.items()}
    embedding = logits.pop("embedding")
    labels = list(recipes[0].labels)
    targets = np.array([labels.index(photo.label) for photo in photos])
    return Outputs(logits.pop("general"), logits, targets), embedding


def _chunks(photos: Sequence[Photo], size: int) -> Iterator[Sequence[Photo]]:
    return (photos[i : i + size] for i in range(0, len(photos), size))
