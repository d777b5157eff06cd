"""What `cascade learn` gains and what it forgets.

    python benchmarks/learn_from_corrections.py DATA --cache DIR --keep FOLDER... [--label-map A=B ...]

Takes --count photos of DATA (LABEL/FILE) by chance as corrections, those of --labels alone if that is given,
makes a bundle of them with `cascade learn`, and compares old and new on the rest of DATA and on every folder
of --keep: photos of labels that the old bundle knew. A label that the bundle does not know is a new one.
Embeddings of the photos that measure are computed once and kept in --cache.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from cascade.bundle.manifest import Bundle
from cascade.evaluation.dataset import Photo, scan
from cascade.evaluation.label_map import parse_label_map
from cascade.training.learning.embeddings import embed
from cascade.training.learning.learn import LearnOptions, learn
from cascade.training.learning.remember import ImageStages, heads_of
from cascade.training.learning.verdict import answers, compare

Embeddings = dict[str, np.ndarray]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--keep", type=Path, nargs="*", default=[])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--label-map", action="append", default=[])
    parser.add_argument(
        "--labels", default="", help="comma-separated; all that the bundle knows if not given"
    )
    parser.add_argument("--count", type=int, default=215)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    given = parser.parse_args()
    old = Bundle.load(given.bundle)
    wanted = given.labels.split(",") if given.labels else list(old.tree.labels)
    label_map = parse_label_map(given.label_map)
    photos = [photo for photo in scan(given.data, label_map=label_map).photos if photo.label in wanted]
    order = np.random.default_rng(given.seed).permutation(len(photos))
    corrections = [photos[place] for place in order[: given.count]]
    rest = [photos[place] for place in order[given.count :]]
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "corrections", Path(scratch) / "bundle"
        for photo in corrections:
            (folder / photo.label).mkdir(parents=True, exist_ok=True)
            (folder / photo.label / f"{photo.sha256[:12]}{photo.path.suffix}").symlink_to(
                photo.path.absolute()
            )
        learn(given.bundle, [folder], out, LearnOptions(force=given.force))
        new = Bundle.load(out)
        measure(old, new, "other photos of the same folder", rest, given.cache)
        for keep in given.keep:
            known = [photo for photo in scan(keep).photos if photo.label in old.tree.labels]
            measure(old, new, f"kept: {keep.parent.name}/{keep.name}", known, given.cache)


def measure(old: Bundle, new: Bundle, name: str, photos: list[Photo], cache: Path) -> None:
    """Print how both bundles fare on photos."""
    photos, embedded = embeddings(old, photos, cache)
    count, labels = len(new.tree.labels), list(new.tree.labels)
    truth = np.array([labels.index(photo.label) for photo in photos])
    said = []
    for bundle in (old, new):
        heads = heads_of(ImageStages(bundle.folder, bundle.general, bundle.experts))
        said.append(
            answers(bundle, {stage: head.logits(embedded[stage]) for stage, head in heads.items()}, count)
        )
    found = compare(name, said[0], said[1], truth)
    print("\n".join(found.lines() if found else [f"{name}: no photos"]), flush=True)


def embeddings(bundle: Bundle, photos: list[Photo], cache: Path) -> tuple[list[Photo], Embeddings]:
    """Return the photos that could be read, and stage -> what its head reads; `learn` does not change it."""
    cache.mkdir(parents=True, exist_ok=True)
    known: dict[str, Embeddings] = {}
    stages = [bundle.general.name, *(expert.name for expert in bundle.experts)]
    for path in sorted(cache.glob("*.npz")):
        with np.load(path) as file:
            arrays = {stage: file[stage] for stage in stages}
            known |= {
                key: {s: arrays[s][row] for s in stages} for row, key in enumerate(file["sha256"].tolist())
            }
    missing = [photo for photo in photos if photo.sha256 not in known]
    if missing:
        found = embed(bundle.folder, bundle.general, bundle.experts, missing)
        keys = np.array([photo.sha256 for photo in found.photos])
        np.savez(cache / f"{len(list(cache.glob('*.npz')))}.npz", sha256=keys, **found.of)
        known |= {key: {s: found.of[s][row] for s in stages} for row, key in enumerate(keys.tolist())}
    read = [photo for photo in photos if photo.sha256 in known]
    return read, {stage: np.stack([known[photo.sha256][stage] for photo in read]) for stage in stages}


if __name__ == "__main__":
    main()
