"""Prints the accuracy of a model before and after its training photos were cleaned as `cascade audit` says.

    python benchmarks/audit_cleaning.py PHOTOS [--wrong-labels 0.2] [--work DIR]

Five times, another fifth of the photos is measured on: nothing of it is cleaned, or known to the audit. The
model is logistic regression on embeddings. The differences are paired, photo by photo. With --wrong-labels,
that share of the labels of the training photos is first replaced by another one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from cascade.audit.audit import audit
from cascade.audit.cross_fit import Judged, cross_fit
from cascade.audit.decisions import propose
from cascade.audit.duplicates import groups_of
from cascade.audit.examine import Examiner
from cascade.audit.label_errors import label_findings, wrong_labels
from cascade.audit.listing import Listed, list_photos
from cascade.audit.store import Store
from cascade.bundle.manifest import Bundle
from cascade.evaluation.metrics import paired_difference, wilson_interval
from cascade.inference.cpu import usable_cores

FOLDS = 5


def fitted(embeddings: np.ndarray, labels: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the labels that a model, fitted on some photos, gives to others."""
    return LogisticRegression(C=10.0, max_iter=300).fit(embeddings, labels).predict(measured)


def ways(
    photos: Sequence[Listed], judged: Judged, extra: np.ndarray, chance: np.random.Generator
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, for each way to clean, which photos are learned from and their labels.

    Args:
        photos: to learn from.
        judged: what cross-fitted models say of their labels.
        extra: whether a photo is a copy of another that stays.
        chance: for the control.
    """
    labels = np.array([photo.label for photo in photos])
    suspects = wrong_labels(judged)
    findings = list(label_findings(photos, judged, suspects))
    rows = judged.rows[suspects]
    suggested, wrong = labels.copy(), np.zeros(len(photos), dtype=bool)
    suggested[rows], wrong[rows] = [finding.suggested for finding in findings], True
    sure, proposed, renamed = np.zeros_like(wrong), extra.copy(), labels.copy()
    for row, finding, decision in zip(rows, findings, propose(findings), strict=True):
        sure[row] = finding.score >= 0.75
        proposed[row] |= decision.action == "remove"
        renamed[row] = finding.suggested if decision.action == "relabel" else labels[row]
    at_random = np.zeros_like(wrong)
    at_random[chance.choice(len(photos), wrong.sum(), replace=False)] = True
    everything = np.ones_like(wrong)
    return {
        "as it is": (everything, labels),
        "copies removed": (~extra, labels),
        "as proposed": (~proposed, renamed),
        "surer suspects (0.75) removed": (~sure, labels),
        "all suspects removed": (~wrong, labels),
        "all suspects relabelled": (everything, suggested),
        "as many removed at random": (~at_random, labels),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--wrong-labels", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--work", type=Path, help="keep what was found in the photos here")
    arguments = parser.parse_args()
    photos = list_photos([arguments.photos])
    bundle = Bundle.load(None)
    with tempfile.TemporaryDirectory() as scratch:
        path = (arguments.work or Path(scratch)) / "seen.sqlite"
        with Store(path, bundle.general.sha256) as store:
            found = audit(photos, Examiner(bundle), store, workers=usable_cores())
            photos = [photo for photo, facts in zip(photos, found.facts, strict=True) if facts.readable]
            embeddings = store.embeddings([photo.path for photo in photos])
    # Fewer numbers, so that it takes seconds; the labels have no part in it.
    reduced = PCA(min(256, *embeddings.shape), random_state=0).fit_transform(embeddings)
    places = {photo.shown: place for place, photo in enumerate(photos)}
    pairs = [
        (places[finding.other], places[finding.path])
        for kind in ("exact_duplicate", "near_duplicate")
        for finding in found.of_kind(kind)
    ]
    groups = groups_of(len(photos), pairs)
    truth = np.array([photo.label for photo in photos])
    chance = np.random.default_rng(0)
    right, used = defaultdict(lambda: np.zeros(len(photos), dtype=bool)), defaultdict(int)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for train, test in splitter.split(embeddings, truth, groups):
        given = truth[train].copy()
        flipped = chance.random(len(train)) < arguments.wrong_labels
        others = {
            label: [other for other in np.unique(truth) if other != label] for label in np.unique(truth)
        }
        given[flipped] = [chance.choice(others[label]) for label in given[flipped]]
        taught = [Listed(photos[i].path, str(label), "", "") for i, label in zip(train, given, strict=True)]
        judged = cross_fit(embeddings[train], given, groups[train], np.zeros(len(train), dtype=bool))
        first = np.zeros(len(train), dtype=bool)
        first[np.unique(groups[train], return_index=True)[1]] = True
        for way, (kept, labels) in ways(taught, judged, ~first, chance).items():
            said = fitted(reduced[train][kept], labels[kept], reduced[test])
            right[way][test] = said == truth[test]
            used[way] += int(kept.sum())
    print(f"{len(photos)} photos, {arguments.wrong_labels:.0%} of the training labels made wrong")
    print(f"{'training photos':32} {'learned from':>12}  accuracy %         against as it is, points")
    for way, hits in right.items():
        low, high = wilson_interval(int(hits.sum()), len(hits))
        text = ""
        if way != "as it is":
            difference = paired_difference(right["as it is"], hits)
            ends = [100 * end for end in difference.interval]
            text = f"{100 * difference.difference:+.1f} ({ends[0]:+.1f} to {ends[1]:+.1f})"
        share = f"{100 * hits.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})"
        print(f"{way:32} {used[way] / FOLDS:12.0f}  {share:18} {text}")


if __name__ == "__main__":
    main()
