"""How many labels `cascade suggest` saves against photos picked at random.

    python benchmarks/active_choice.py DATA [--bundle B] [--label-map FOLDER=LABEL ...] [--scratch]

DATA holds LABEL/FILE. Half of it is a pool that labels are asked for, half measures. In rounds, photos are
chosen by each way, the head of the general model is fitted on all that were labelled so far (and on the
bundle's memory, as `cascade learn` does), and the next round chooses with that head. With --scratch there is
no head and no memory to begin with, and the first round is drawn at random: what a new bundle would need.
Embeddings are computed once and kept in --cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from scipy import stats

from cascade.arrays import softmax
from cascade.bundle.manifest import Bundle
from cascade.evaluation.dataset import scan
from cascade.evaluation.label_map import parse_label_map
from cascade.review.active_choice import choose_photos, most_doubtful
from cascade.training.learning.embeddings import embed
from cascade.training.learning.fit_head import Lesson, fit_head
from cascade.training.learning.heads import Head, read_head
from cascade.training.learning.memory import MEMORY_FILE, read_memory

#: Labels after each round.
SIZES = (25, 50, 100, 200, 400)
#: One of those that `cascade learn` tries; the same for every way, so that only the choice of photos differs.
PULL = 3e-2
SHARE = 0.05

Choose = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
WAYS: dict[str, Choose] = {
    "random": lambda p, h, n, seed: np.random.default_rng(seed).permutation(len(p))[:n],
    "doubt": lambda p, h, n, seed: most_doubtful(p, n),
    "suggest": lambda p, h, n, seed: choose_photos(p, h, n, seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--label-map", action="append", default=[])
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    known = None if given.scratch else set(bundle.tree.labels)
    x, names = embeddings(bundle, given)
    keep = np.array([known is None or name in known for name in names])
    x, names = x[keep], names[keep]
    labels = sorted(set(names)) if given.scratch else list(bundle.tree.labels)
    y = np.array([labels.index(name) for name in names])
    start, memory = beginning(bundle, labels, x.shape[1], scratch=given.scratch)
    print(
        f"{len(y)} photos of {len(set(names))} labels: half are the pool, half measure; {given.seeds} seeds"
    )
    sizes = [size for size in SIZES if size <= len(y) // 2]
    curves = {
        way: np.array([curve(way, x, y, start, memory, sizes, seed) for seed in range(given.seeds)])
        for way in WAYS
    }
    report(curves, sizes)


def embeddings(bundle: Bundle, given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return what the general model's head reads, (N, D), and the labels, (N,)."""
    if given.cache is not None and given.cache.is_file():
        with np.load(given.cache) as file:
            return file["x"], file["names"]
    dataset = scan(given.data, label_map=parse_label_map(given.label_map))
    found = embed(bundle.folder, bundle.general, (), dataset.photos)
    x, names = found.of["general"], np.array([photo.label for photo in found.photos])
    if given.cache is not None:
        np.savez(given.cache, x=x, names=names)
    return x, names


def beginning(
    bundle: Bundle, labels: list[str], width: int, *, scratch: bool
) -> tuple[Head, tuple[np.ndarray, np.ndarray]]:
    """Return the head to begin with, and embeddings in memory with what that head says of them."""
    if scratch:
        return Head(np.zeros((len(labels), width)), np.zeros(len(labels))), (
            np.zeros((0, width)),
            np.zeros((0, len(labels))),
        )
    path = bundle.folder / bundle.general.file
    head = read_head(onnx.load(path), str(path))
    memory = read_memory(bundle.folder / MEMORY_FILE)
    rows = memory.of["general"][memory.part("train")]
    return head, (rows, softmax(head.logits(rows)))


def curve(
    way: str,
    x: np.ndarray,
    y: np.ndarray,
    start: Head,
    memory: tuple[np.ndarray, np.ndarray],
    sizes: list[int],
    seed: int,
) -> list[float]:
    """Return the accuracy before and after each round."""
    order = np.random.default_rng(seed).permutation(len(y))
    judged, pool = order[: len(y) // 2], order[len(y) // 2 :]
    head, labelled = start, np.zeros(0, dtype=np.int64)
    found = [accuracy(head, x[judged], y[judged])]
    for number, size in enumerate(sizes):
        left = np.setdiff1d(pool, labelled)
        first = number == 0 and not len(memory[0])
        choose = WAYS["random" if first else way]
        chosen = choose(softmax(head.logits(x[left])), x[left], size - len(labelled), seed * 100 + number)
        labelled = np.concatenate([labelled, left[chosen]])
        head = fit(start, memory, x[labelled], y[labelled], head)
        found.append(accuracy(head, x[judged], y[judged]))
    return found


def fit(
    start: Head, memory: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray, begin: Head
) -> Head:
    known, new = len(memory[0]), len(y)
    share = max(new / (new + known), SHARE)
    weights = np.concatenate([np.full(known, (1 - share) / max(known, 1)), np.full(new, share / new)])
    targets = np.concatenate([memory[1], np.eye(len(start.bias))[y]])
    lesson = Lesson(np.concatenate([memory[0], x]), targets, weights)
    return fit_head(start, lesson, PULL if known else PULL / 10, begin)


def accuracy(head: Head, x: np.ndarray, y: np.ndarray) -> float:
    return float((head.logits(x).argmax(axis=1) == y).mean())


def report(curves: dict[str, np.ndarray], sizes: list[int]) -> None:
    """Print mean accuracies, the gain with a 95 % interval over seeds, and random labels worth as much."""
    print("| labels | " + " | ".join(WAYS) + " | suggest - random (95 %) | random labels for the same |")
    print("|---|" + "---|" * (len(WAYS) + 2))
    chance = curves["random"].mean(axis=0)
    for place, size in enumerate([0, *sizes]):
        cells = [f"{found[:, place].mean():.1%}" for found in curves.values()]
        gap = curves["suggest"][:, place] - curves["random"][:, place]
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
        reached = curves["suggest"][:, place].mean()
        same = "" if not place else worth(reached, chance, [0, *sizes])
        low, high = gap.mean() - half, gap.mean() + half
        cells += [f"{gap.mean():+.1%} ({low:+.1%} to {high:+.1%})", same]
        print(f"| {size} | {' | '.join(cells)} |")


def worth(reached: float, chance: np.ndarray, sizes: list[int]) -> str:
    """Return with how many random labels this accuracy is reached, between those that were measured."""
    rising = np.maximum.accumulate(chance)
    if reached > rising[-1]:
        return f"more than {sizes[-1]}"
    return f"{np.interp(reached, rising, sizes):.0f}"


if __name__ == "__main__":
    main()
