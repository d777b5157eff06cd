"""Compares photos without labels with those that the bundle's promise was tested on, and reports differences.

Four things are compared, each by a two-sample test of scipy:

    confidence    of the most probable leaf                   Kolmogorov-Smirnov
    strangeness   the scope score, a distance of embeddings   Kolmogorov-Smirnov
    deferral      share of photos shown to an expert          Fisher's exact test
    label mix     counts of the most probable leaf            chi-squared test of homogeneity

With many photos every difference is significant, with few photos none is; so a difference counts when it is
significant after Holm's correction *and* large enough to matter (`MATTERS`). Finding none does not prove that
there is none: with few photos a large difference can be missed, and errors can become more frequent without a
change in any of the four. Only labelled photos show whether the promise holds.

Predictions must come from the bundle whose reference is used, with experts asked by its router. Confidence
and label are those of the most probable leaf, whatever the operating point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cascade.errors import BundleError, UsageError, needs_extra
from cascade.prediction import Prediction
from cascade.validated import Validated

__all__ = [
    "FEWEST_PHOTOS",
    "LEVEL",
    "MATTERS",
    "DriftReport",
    "DriftTest",
    "Reference",
    "check_drift",
    "holm",
]

#: With fewer photos than this no test is made.
FEWEST_PHOTOS: Final = 30
#: Probability of raising a false alarm at all, over the four tests.
LEVEL: Final = 0.01
#: The smallest effect that counts: distance of distributions for the first two, difference of the shares for
#: deferral, half the sum of the differences of all shares for the label mix; all are 0..1.
MATTERS: Final[dict[str, float]] = {
    "confidence": 0.10,
    "strangeness": 0.10,
    "deferral": 0.10,
    "label mix": 0.20,
}
#: The label-mix test pools labels of which fewer photos than this are expected, as is usual for chi-squared.
_FEWEST_EXPECTED: Final = 5


class Reference(Validated, frozen=True):
    """Figures of the photos that the promise was tested on.

    Attributes:
        confidences: of the most probable leaf, one per photo, rising.
        scope_scores: one per photo, rising; empty if the bundle has no scope stage.
        labels: most probable leaf -> number of photos.
        deferred: number of photos that were shown to an expert.

    Raises:
        BundleError: when the numbers contradict each other.
    """

    confidences: tuple[float, ...]
    scope_scores: tuple[float, ...]
    labels: Mapping[str, int]
    deferred: int

    def __post_init__(self) -> None:
        super().__post_init__()
        n = len(self.confidences)
        if not n or sum(self.labels.values()) != n or not 0 <= self.deferred <= n:
            raise BundleError("reference: the counts are not those of the same photos")
        if len(self.scope_scores) not in (0, n):
            raise BundleError("reference: there must be one scope score per photo, or none")

    @property
    def photos(self) -> int:
        """Number of photos."""
        return len(self.confidences)


@dataclass(frozen=True, slots=True)
class DriftTest:
    """One comparison.

    Attributes:
        name: a key of `MATTERS`.
        effect: how large the difference is, 0..1, see `MATTERS`.
        p_value: corrected for the number of tests by Holm's method.
        drifted: whether it is significant and large enough to matter.
        text: the difference in words.
    """

    name: str
    effect: float
    p_value: float
    drifted: bool
    text: str


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What the comparison found.

    Attributes:
        photos: that were compared; photos that could not be read are left out.
        reference_photos: that they were compared with.
        tests: none if there are too few photos.
    """

    photos: int
    reference_photos: int
    tests: tuple[DriftTest, ...]

    @property
    def trusted(self) -> bool | None:
        """False if a difference was found, True if none was, None if there are too few photos for the tests.

        True is no proof that the promise holds; see the module's text.
        """
        return not any(test.drifted for test in self.tests) if self.tests else None

    @property
    def verdict(self) -> str:
        """One line for people."""
        if self.trusted is None:
            return (
                f"{self.photos} photos are too few to compare with those that the promise was tested on; "
                f"{FEWEST_PHOTOS} are needed"
            )
        if self.trusted:
            return (
                f"No drift was found: nothing that was compared differs enough between these {self.photos} "
                f"photos and the {self.reference_photos} that the promise was tested on. "
                "That does not prove that the promise holds here; labelled photos would show it."
            )
        why = "; ".join(f"{test.text} (p = {test.p_value:.1g})" for test in self.tests if test.drifted)
        return f"Drift was found, so do not rely on the promise for these {self.photos} photos: {why}."

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "photos": self.photos,
            "reference_photos": self.reference_photos,
            "trusted": self.trusted,
            "verdict": self.verdict,
            "tests": [
                {
                    "name": test.name,
                    "effect": round(test.effect, 4),
                    "p_value": test.p_value,
                    "drifted": test.drifted,
                    "text": test.text,
                }
                for test in self.tests
            ],
        }


def check_drift(reference: Reference, predictions: Iterable[Prediction]) -> DriftReport:
    """Compare predictions with the bundle's reference.

    Args:
        reference: `Bundle.reference`.
        predictions: of photos without labels, in any order; rows with an error are skipped.

    Raises:
        MissingExtraError: when scipy is not installed.
        UsageError: when predictions come from another bundle, as far as that shows.
    """
    with needs_extra("comparing a stream with the bundle's reference", "drift"):
        from scipy import stats
    rows = [prediction for prediction in predictions if prediction.ok]
    if len(rows) < FEWEST_PHOTOS:
        return DriftReport(len(rows), reference.photos, ())
    found: list[tuple[str, float, float, str]] = []

    def compare(name: str, before: tuple[float, ...], after: list[float], low: str, high: str) -> None:
        test = stats.ks_2samp(before, after)
        was, now = float(np.median(before)), float(np.median(after))
        word = high if now > was else low
        text = f"{word} (median {now:.3g} instead of {was:.3g})"
        found.append((name, float(test.statistic), float(test.pvalue), text))

    sure = [row.top[0][1] for row in rows]
    compare("confidence", reference.confidences, sure, "the model is less sure", "the model is surer")
    if reference.scope_scores:
        scores = [row.scope_score for row in rows if row.scope_score is not None]
        if len(scores) < len(rows):
            raise UsageError("predictions without scope scores are not from this bundle; classify again")
        compare(
            "strangeness", reference.scope_scores, scores, "photos are more ordinary", "photos are stranger"
        )

    n, m = len(rows), reference.photos
    deferred = sum(bool(row.experts) for row in rows)
    now, was = deferred / n, reference.deferred / m
    table = [[deferred, n - deferred], [reference.deferred, m - reference.deferred]]
    text = f"experts are asked about {now:.0%} of the photos instead of {was:.0%}"
    found.append(("deferral", abs(now - was), float(stats.fisher_exact(table).pvalue), text))

    counts = Counter(row.top[0][0] for row in rows)
    strangers = set(counts) - set(reference.labels)
    if not reference.labels.keys() >= counts.keys():
        raise UsageError(f"{sorted(strangers)[0]!r} is no label of this bundle's reference; classify again")
    found.append(("label mix", *_label_mix(counts, reference, stats)))

    corrected = holm([p for _, _, p, _ in found])
    tests = tuple(
        DriftTest(name, effect, p, p <= LEVEL and effect >= MATTERS[name], text)
        for (name, effect, _, text), p in zip(found, corrected, strict=True)
    )
    return DriftReport(n, m, tests)


def _label_mix(counts: Counter[str], reference: Reference, stats: Any) -> tuple[float, float, str]:
    """Return effect, p-value and words."""
    labels = list(reference.labels)
    before = np.array([reference.labels[label] for label in labels], dtype=np.float64)
    after = np.array([counts[label] for label in labels], dtype=np.float64)
    change = after / after.sum() - before / before.sum()
    expected = (before + after) * min(before.sum(), after.sum()) / (before.sum() + after.sum())
    frequent = expected >= _FEWEST_EXPECTED
    table = np.stack([[*side[frequent], side[~frequent].sum()] for side in (before, after)])
    table = table[:, table.sum(0) > 0]
    p = float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    most = int(np.abs(change).argmax())
    text = (
        f"the mix of labels differs, most of all {labels[most]} with {after[most] / after.sum():.0%} "
        f"instead of {before[most] / before.sum():.0%}"
    )
    return float(np.abs(change).sum() / 2), p, text


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(p) for p in corrected]
