"""Chooses the photos that teach most when somebody labels them: doubtful ones that are unlike each other.

BADGE (Ash et al. 2020, arXiv 1906.03671): a photo stands for the gradient that its likeliest label would give
the head, g = (p - 1[likeliest]) x embedding, which is long where the answer is in doubt. k-means++ draws
photos whose g are long and far from those drawn already. g has labels x embedding numbers and is not built:

    |g - g'|^2 = |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a . a') (h . h')    a = p - 1[likeliest], h = embedding
"""

from __future__ import annotations

import numpy as np

from cascade.arrays import Floats, Ints

__all__ = ["choose_photos", "most_doubtful"]


def most_doubtful(probabilities: Floats, count: int) -> Ints:
    """Return the places of the photos with the smallest margin between their two likeliest labels.

    Args:
        probabilities: (N, L), L at least 2.
        count: how many; all if there are fewer.
    """
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.argsort(two[:, 1] - two[:, 0], kind="stable")[:count]


def choose_photos(probabilities: Floats, embedding: Floats, count: int, seed: int = 0) -> Ints:
    """Return the places of photos to label, those that teach most first.

    Args:
        probabilities: (N, L).
        embedding: (N, D).
        count: how many; all if there are fewer.
        seed: of the drawing; the same seed gives the same photos.
    """
    rng = np.random.default_rng(seed)
    a = np.array(probabilities, dtype=np.float64)
    a[np.arange(len(a)), a.argmax(axis=1)] -= 1.0
    h = np.asarray(embedding, dtype=np.float64)
    h = h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    length = (a**2).sum(axis=1)
    chosen: list[int] = []
    distance = length.copy()  # to nothing: the first one is drawn by its doubt
    while len(chosen) < min(count, len(a)):
        total = float(distance.sum())
        left = np.setdiff1d(np.arange(len(a)), chosen)
        # Once every photo left is like one that was chosen, any of them will do.
        place = int(rng.choice(len(a), p=distance / total) if total > 1e-9 else rng.choice(left))
        chosen.append(place)
        away = length + length[place] - 2 * (a @ a[place]) * (h @ h[place])
        distance = np.minimum(distance, np.maximum(away, 0.0))
        distance[chosen] = 0.0
    return np.array(chosen, dtype=np.int64)
