"""Makes a new bundle from a bundle and photos of one's own, without training.

The networks stay as they are. Arbiter, router, scope stage, promises, label sets and the reference for drift
are fitted anew, because they hold for photos like those that they were fitted on.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import onnx

import cascade
from cascade.bundle.manifest import Bundle
from cascade.bundle.stage import EXACT, GraphFile, ImageStage
from cascade.classifier import Cascade
from cascade.errors import DataError
from cascade.evaluation.dataset import Dataset, Photo, scan
from cascade.evaluation.evaluate import evaluate
from cascade.ownership import check_bundle_target, empty_scratch
from cascade.training.calibration.before_after import before_and_after, one_source
from cascade.training.calibration.cross_fitting import cut
from cascade.training.export.earlier_bundle import recipe_facts, training_facts, whole
from cascade.training.export.finish_bundle import Draft, data_summary, finish_bundle
from cascade.training.export.packaging import take_place
from cascade.training.learning.memory import MEMORY_FILE
from cascade.training.project import readable, strangers_in
from cascade.training.training_log import TrainingLog

__all__ = ["recalibrate"]

#: With fewer photos the fit is chance. (A promise needs more, and says so itself.)
_FEWEST: Final = 30
_FIRST_VERSION: Final = "0.1.0"

_Stage = TypeVar("_Stage", bound=ImageStage)


def recalibrate(
    bundle: Path | None,
    data: Path | Sequence[Path],
    out: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    max_error: float = 0.15,
    replace_bundle: bool = False,
    label_map: Mapping[str, str] | None = None,
    out_of_scope: Path | None = None,
) -> None:
    """Calibrate a bundle on other photos and write it as a new one.

    Args:
        bundle: folder; None is the shipped one.
        data: folders of labelled photos, see `cascade.evaluation.dataset.scan`. Of `DATA/LABEL/FILE` that
            the bundle has never seen, 15 % are set aside to measure and the rest calibrates; else the split
            `calibration` does.
        out: folder of the new bundle.
        name: of the new bundle; the name of ``out`` if None.
        version: of the new bundle; 0.1.0 if None.
        max_error: see `cascade.training.run.train`.
        replace_bundle: whether a bundle at ``out`` may be replaced; it may be ``bundle`` itself.
        label_map: name of a folder -> label that it stands for.
        out_of_scope: as for `cascade.training.run.train`.

    Raises:
        OutputError: at once, when something at ``out`` would be lost.
        BundleError: when the bundle is damaged.
        DataError: when photos are missing, too few, or labelled with what the bundle does not know.
    """
    folders = [data] if isinstance(data, Path) else list(data)
    check_bundle_target(out, replace=replace_bundle)
    work = out.with_name(out.name + ".calibrate")  # not OUT.work, where a training keeps its checkpoints
    empty_scratch(work / "bundle")
    old = whole(Bundle.load(bundle))
    dataset = readable(scan(folders, label_map=label_map), work)
    fits = _photos_to_fit(old, folders, dataset)
    strangers = None if out_of_scope is None else strangers_in(out_of_scope, work)
    with TrainingLog() as log:
        log.line(f"{len(fits)} photos calibrate, {len(dataset.split('test'))} measure")
        folder = work / "bundle"
        folder.mkdir(parents=True)
        draft = _draft(old, folder, name or out.name, version or _FIRST_VERSION, dataset, strangers)
        finish_bundle(
            folder,
            draft,
            fits,
            dataset.split("test"),
            log=log,
            max_error=max_error,
            out_of_scope=strangers.photos if strangers else (),
        )
        _say_what_changed(old, folder, fits, draft.seed, log)
        take_place(folder, out)
        (work / "unreadable.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # whatever else is in there is not ours
            work.rmdir()
        log.line(f"wrote {out}; measure it with: cascade evaluate {folders[0]} --bundle {out}")


def _photos_to_fit(old: Bundle, folders: Sequence[Path], dataset: Dataset) -> tuple[Photo, ...]:
    """Return the photos that calibrate; raises `DataError` for unknown labels and for too few photos."""
    named = " ".join(str(folder) for folder in folders)
    unknown = sorted(set(dataset.labels) - set(old.tree.labels))
    if unknown:
        raise DataError(
            f"{named}: the bundle does not know {', '.join(unknown)}; say what these folders stand for with "
            f"--label-map FOLDER=LABEL ({', '.join(old.tree.labels[:5])}, ...; see `cascade info`), or "
            "train one of your own"
        )
    splits = _splits(old, folders, dataset.fingerprint())
    fits = tuple(photo for photo in dataset.photos if photo.split in splits)
    if len(fits) < _FEWEST:
        raise DataError(f"{named}: has {len(fits)} photos to calibrate on; at least {_FEWEST} are needed")
    return fits


def _draft(
    old: Bundle, folder: Path, name: str, version: str, dataset: Dataset, strangers: Dataset | None
) -> Draft:
    """Copy the image stages of the old bundle into the folder of the new one."""
    words, seed = recipe_facts(old.provenance)
    calibrated = {"cascade": cascade.__version__, "data": data_summary(dataset)}
    if strangers is not None:
        calibrated["out_of_scope"] = data_summary(strangers)
    title = f"{name} {version}"
    if (old.folder / MEMORY_FILE).is_file():  # what `cascade learn` needs; the networks stay as they are
        shutil.copyfile(old.folder / MEMORY_FILE, folder / MEMORY_FILE)
    return Draft(
        name,
        version,
        old.tree,
        _adopt(old, old.general, folder, title),
        tuple(_adopt(old, expert, folder, title) for expert in old.experts),
        dict(old.provenance) | {"calibrated": calibrated},
        words,
        training_facts(old.folder),
        seed,
    )


def _say_what_changed(old: Bundle, new: Path, fits: Sequence[Photo], seed: int, log: TrainingLog) -> None:
    """Say how good the old and the new bundle are on the photos that were held out."""
    _, held_out = cut(np.array([old.tree.labels.index(photo.label) for photo in fits]), seed)
    judges = [fits[place] for place in held_out]
    before, after = (evaluate(Cascade(at, variant=EXACT), judges) for at in (old.folder, new))
    for line in (*before_and_after(before, after), *filter(None, [one_source(fits)])):
        log.line(line)
    if old.experts and not after.deferred["cascade"].any():
        log.line("experts are not asked: on these photos they do not help; --budget 1 asks them")


def _splits(bundle: Bundle, folders: Sequence[Path], fingerprint: str) -> tuple[str, ...]:
    """Return the splits that calibrate: never what the networks learned from."""
    learned = bundle.provenance.get("data", {}).get("fingerprint") == fingerprint
    split = any((folder / "calibration").is_dir() for folder in folders)
    return ("calibration",) if learned or split else ("train", "calibration")


def _adopt(bundle: Bundle, stage: _Stage, folder: Path, title: str) -> _Stage:
    """Copy the graphs of an image stage; their metadata names the new bundle."""

    def copy(file: str) -> str:
        model = onnx.load_model_from_string((bundle.folder / file).read_bytes())
        for fact in model.metadata_props:
            if fact.key == "cascade.bundle":
                fact.value = title
        content = model.SerializeToString(deterministic=True)
        (folder / file).write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    variants = {
        key: GraphFile(file=graph.file, sha256=copy(graph.file)) for key, graph in stage.variants.items()
    }
    return stage.replace(sha256=copy(stage.file), variants=variants)
