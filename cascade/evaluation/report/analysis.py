"""Computes what a report says about an evaluation, as plain values.

The page shows nothing that is not computed here. Shares are 0..1, intervals are [low, high] at 95 %, and what
is undefined (the precision of a label that was never given) is None. Lists of photos are positions in
`Evaluation.photos`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from cascade.arrays import Bools, Float64s, Ints, softmax
from cascade.bundle.manifest import Bundle
from cascade.evaluation import calibration_metrics as reliability
from cascade.evaluation import metrics
from cascade.evaluation.results import SYSTEMS, Evaluation
from cascade.evaluation.sources import accuracy_by_source
from cascade.labels import NOT_MINE, UNKNOWN
from cascade.policy import REASONS

__all__ = ["SIZES", "analyse", "expert_says"]

#: Classes of photo size: name -> smallest shorter side in pixels.
SIZES: Final[dict[str, int]] = {
    "below 160 px": 0,
    "160 to 319 px": 160,
    "320 to 639 px": 320,
    "640 to 1279 px": 640,
    "1280 px and more": 1280,
}
_CONFUSIONS: Final = 10
_CONFUSION_PHOTOS: Final = 4
_EXPERT_PHOTOS: Final = 6
_MISTAKES: Final = 12
_CURVE_POINTS: Final = 200


def analyse(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything that the report shows; `Evaluation.to_dict` and then one key per section."""
    tree = evaluation.bundle.tree
    sources = [photo.collection or "unknown" for photo in evaluation.photos]
    by_source = accuracy_by_source(evaluation)
    by_count = [name for name, _ in Counter(sorted(sources)).most_common()]
    confusion = metrics.confusion_matrix(evaluation.truth, evaluation.predicted(), len(tree.labels))
    return {
        **evaluation.to_dict(),
        "answers": _answers(evaluation),
        "labels": _labels(evaluation),
        "confusion": {
            "labels": list(tree.labels),
            "parents": [tree.parent_of[label] for label in tree.labels],
            "counts": confusion.tolist(),
        },
        "confusions": _confusions(evaluation, confusion),
        "pairs": _pairs(evaluation, confusion),
        "mistakes": _surest(evaluation, ~evaluation.right())[:_MISTAKES],
        "reliability": {system: _reliability(evaluation, system) for system in SYSTEMS},
        "risk_coverage": {system: _risk_coverage(evaluation, system) for system in SYSTEMS},
        "groups": _breakdown(evaluation, [tree.parent_of[p.label] for p in evaluation.photos], tree.parents),
        # Without a manifest there is one source, "unknown", and nothing to compare.
        "by_source": by_source.to_dict() if by_source else None,
        "sources": _breakdown(evaluation, sources, by_count) if len(by_count) > 1 else [],
        "sizes": _breakdown(evaluation, _size_classes(evaluation), tuple(SIZES)),
        "routing": _routing(evaluation),
    }


def expert_says(evaluation: Evaluation, expert: str) -> tuple[list[str], Float64s]:
    """Return an expert's most probable label for every photo, asked or not, and its plain softmax, (N,)."""
    probabilities = softmax(evaluation.expert_logits[expert].astype(np.float64))
    labels = next(stage.labels for stage in evaluation.bundle.experts if stage.name == expert)
    return [labels[column] for column in probabilities.argmax(axis=1)], probabilities.max(axis=1)


def _answers(evaluation: Evaluation) -> list[dict[str, Any]]:
    """How often the policy gives each kind of answer, and how often that is right."""
    tree = evaluation.bundle.tree
    right: dict[str, list[bool]] = {reason: [] for reason in REASONS}
    unanswered = set()
    for place, photo in enumerate(evaluation.photos):
        decision = evaluation.decision(place)
        right[decision.reason].append(decision.label in (photo.label, tree.parent_of[photo.label]))
        if decision.label == UNKNOWN:
            unanswered.add(decision.reason)
    rows = []
    for reason, flags in right.items():
        row: dict[str, Any] = {"reason": reason, "meaning": REASONS[reason], "photos": len(flags)}
        row["share"] = len(flags) / len(evaluation.photos)
        answered = flags and reason not in unanswered
        row["accuracy"] = sum(flags) / len(flags) if answered else None
        row["accuracy_interval"] = list(metrics.wilson_interval(sum(flags), len(flags))) if answered else None
        rows.append(row)
    return rows


def _labels(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every label, the lowest F1 first; F1 of the general model beside it."""
    tree = evaluation.bundle.tree
    scores = {
        system: metrics.label_scores(
            metrics.confusion_matrix(evaluation.truth, evaluation.predicted(system), len(tree.labels))
        )
        for system in ("general", "cascade")
    }
    now, rows = scores["cascade"], []
    for column, label in enumerate(tree.labels):
        support, predicted, correct = (
            int(counts[column]) for counts in (now.support, now.predicted, now.correct)
        )
        if not support and not predicted:
            continue
        rows.append(
            {
                "label": label,
                "parent": tree.parent_of[label],
                "photos": support,
                "predicted": predicted,
                "correct": correct,
                "precision": _number(now.precision[column]),
                "precision_interval": list(metrics.wilson_interval(correct, predicted)),
                "recall": _number(now.recall[column]),
                "recall_interval": list(metrics.wilson_interval(correct, support)),
                "f1": _number(now.f1[column]),
                "f1_interval": list(metrics.f1_interval(correct, predicted, support)),
                "general_f1": _number(scores["general"].f1[column]),
            }
        )
    return sorted(rows, key=lambda row: row["f1"])


def _confusions(evaluation: Evaluation, confusion: Ints) -> list[dict[str, Any]]:
    """The most frequent confusions, each with its surest photos."""
    labels, wrong = evaluation.bundle.tree.labels, confusion.copy()
    np.fill_diagonal(wrong, 0)
    predicted, rows = evaluation.predicted(), []
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]:
        true, given = divmod(int(flat), len(labels))
        if not wrong[true, given]:
            break
        members = (evaluation.truth == true) & (predicted == given)
        rows.append(
            {
                "label": labels[true],
                "predicted": labels[given],
                "photos": int(wrong[true, given]),
                "share_of_label": float(wrong[true, given] / confusion[true].sum()),
                "examples": _surest(evaluation, members)[:_CONFUSION_PHOTOS],
            }
        )
    return rows


def _pairs(evaluation: Evaluation, confusion: Ints) -> list[dict[str, Any]]:
    """How well two labels are told apart: pairs that the recipe watches, then those confused most.

    Told apart: among the photos of both labels, those whose own label is more probable than the other one.
    """
    labels, truth = evaluation.bundle.tree.labels, evaluation.truth
    watched = _watched_pairs(evaluation.bundle)
    rows = []
    for first in range(len(labels)):
        for second in range(first + 1, len(labels)):
            confused = int(confusion[first, second]), int(confusion[second, first])
            members = (truth == first) | (truth == second)
            is_watched = {labels[first], labels[second]} in watched
            if not members.any() or not (is_watched or any(confused)):
                continue
            row: dict[str, Any] = {"labels": [labels[first], labels[second]], "watched": is_watched}
            row["confused"] = list(confused)
            row["photos"] = n = int(members.sum())
            for system in ("general", "cascade"):
                own = evaluation.probabilities[system][members, truth[members]]
                other = evaluation.probabilities[system][members, first + second - truth[members]]
                apart = int((own > other).sum())
                row[system] = apart / n
                row[f"{system}_interval"] = list(metrics.wilson_interval(apart, n))
            rows.append(row)
    return sorted(rows, key=lambda row: (not row["watched"], -sum(row["confused"])))


def _watched_pairs(bundle: Bundle) -> list[set[str]]:
    """Return the pairs of labels that the general recipe names in ``card.pairs``, "a b, c d"."""
    recipe = bundle.provenance.get("recipes", {}).get("general", {})
    return [set(pair.split()) for pair in recipe.get("card", {}).get("pairs", "").split(",")]


def _reliability(evaluation: Evaluation, system: str) -> list[dict[str, Any]]:
    bins = reliability.reliability_bins(evaluation.confidence(system), evaluation.right(system))
    return [
        {
            "photos": int(count),
            "confidence": float(confidence),
            "accuracy": float(accuracy),
            "accuracy_interval": list(metrics.wilson_interval(round(accuracy * count), int(count))),
        }
        for count, confidence, accuracy in zip(bins.count, bins.confidence, bins.accuracy, strict=True)
    ]


def _risk_coverage(evaluation: Evaluation, system: str) -> list[dict[str, float]]:
    """The curve without its first point, where nobody is answered, thinned to what a plot can show."""
    curve = reliability.risk_coverage(evaluation.confidence(system), evaluation.right(system))
    points = len(curve.coverage)
    keep = np.unique(np.linspace(1, points - 1, min(points - 1, _CURVE_POINTS)).round().astype(int))
    return [
        {
            "threshold": float(curve.threshold[i]),
            "coverage": float(curve.coverage[i]),
            "risk": float(curve.risk[i]),
            "generalized_risk": float(curve.generalized_risk[i]),
        }
        for i in keep
    ]


def _breakdown(evaluation: Evaluation, classes: Sequence[str], order: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy of general model and cascade for each class of photos that occurs."""
    member = np.array(classes)
    right = {system: evaluation.right(system) for system in ("general", "cascade")}
    group_right, rows = evaluation.group_right(), []
    for name in order:
        mine = member == name
        n = int(mine.sum())
        if not n:
            continue
        row: dict[str, Any] = {"name": name, "photos": n}
        for system, flags in right.items():
            row[system] = float(flags[mine].mean())
            row[f"{system}_interval"] = list(metrics.wilson_interval(int(flags[mine].sum()), n))
        row["group"] = float(group_right[mine].mean())
        row["deferral_rate"] = float(evaluation.deferred["cascade"][mine].any(axis=1).mean())
        rows.append(row)
    return rows


def _size_classes(evaluation: Evaluation) -> list[str]:
    names, limits = list(SIZES), list(SIZES.values())
    return [names[i] for i in np.searchsorted(limits, evaluation.sizes.min(axis=1), side="right") - 1]


def _routing(evaluation: Evaluation) -> dict[str, Any]:
    """What asking did, for every expert on its own and for the router as a whole.

    An expert helped if the answer is right and would be wrong had only this expert not been asked, and
    harmed the other way round.
    """
    deferred, right, always = evaluation.deferred["cascade"], evaluation.right(), evaluation.right("always")
    experts = []
    for column, stage in enumerate(evaluation.bundle.experts):
        mine = deferred[:, column]
        without = evaluation.without[stage.name].argmax(axis=1) == evaluation.truth
        helped, harmed = right & ~without, ~right & without
        says, _ = expert_says(evaluation, stage.name)
        disowned = np.array([label == NOT_MINE for label in says])
        experts.append(
            {
                "name": stage.name,
                "cost": stage.cost,
                "asked": int(mine.sum()),
                "asked_rate": float(mine.mean()),
                "disowned": int((disowned & mine).sum()),
                "helped": int(helped.sum()),
                "harmed": int(harmed.sum()),
                "expected_gain": _number(evaluation.gain[mine, column].mean()) if mine.any() else None,
                "seen_gain": float((helped.sum() - harmed.sum()) / mine.sum()) if mine.any() else None,
                "helped_examples": _surest(evaluation, helped)[:_EXPERT_PHOTOS],
                "harmed_examples": _surest(evaluation, harmed)[:_EXPERT_PHOTOS],
            }
        )
    counts = np.bincount(deferred.sum(axis=1), minlength=len(experts) + 1)
    return {
        "experts": experts,
        "photos_by_experts_asked": counts.tolist(),
        "missed": int((always & ~right).sum()),
        "spared": int((right & ~always).sum()),
    }


def _surest(evaluation: Evaluation, members: Bools) -> list[int]:
    """Positions of the members, the most confident first."""
    places = np.flatnonzero(members)
    order = np.argsort(-evaluation.confidence()[places], kind="stable")
    return [int(place) for place in places[order]]


def _number(value: Any) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else float(value)
