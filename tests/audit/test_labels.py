"""Wrong labels, outliers, confusable labels and shortcuts are found where they were planted."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cleanlab", reason="needs the extra audit: pip install -e '.[audit]'")
pytest.importorskip("sklearn", reason="needs the extra audit: pip install -e '.[audit]'")

from cascade.audit.cross_fit import cross_fit
from cascade.audit.examine import Facts
from cascade.audit.label_errors import confusable_labels, label_findings, wrong_labels
from cascade.audit.listing import Listed
from cascade.audit.outliers import outliers, strangeness
from cascade.audit.shortcuts import associations, attributes, few_photos, shortcuts

LABELS = ("bar", "lobby", "office", "store")
EACH = 60


def embeddings(seed: int = 0, apart: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 16) vectors of length 1 around a centre per label, and the labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(LABELS, EACH)
    centres = random.normal(size=(len(LABELS), 16)) * apart
    vectors = centres[np.repeat(np.arange(len(LABELS)), EACH)] + random.normal(size=(len(labels), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


def photos_of(labels: np.ndarray, source: str = "") -> list[Listed]:
    return [Listed(f"{number:03}", str(label), "train", source) for number, label in enumerate(labels)]


def judge(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, measured=None):
    groups = np.arange(len(labels)) if groups is None else groups
    measured = np.zeros(len(labels), dtype=bool) if measured is None else measured
    return cross_fit(vectors, labels.tolist(), groups, measured)


def test_planted_wrong_labels_are_found() -> None:
    vectors, labels = embeddings()
    given = labels.copy()
    wrong = {5: "store", 70: "bar", 130: "bar", 200: "lobby"}
    for place, label in wrong.items():
        given[place] = label
    judged = judge(vectors, given)
    assert judged is not None
    found = list(label_findings(photos_of(given), judged, wrong_labels(judged)))
    assert {finding.path for finding in found} == {f"{place:03}" for place in wrong}
    assert {finding.path: finding.suggested for finding in found} == {
        f"{place:03}": labels[place] for place in wrong
    }
    assert all(finding.score > 0.75 for finding in found)


def test_copies_do_not_vouch_for_each_other() -> None:
    # A wrong label that stands on ten copies: judged apart from each other they would look right.
    vectors, labels = embeddings(apart=0.9)
    given, groups = labels.copy(), np.arange(len(labels))
    vectors[:10], groups[:10], given[:10] = vectors[0], 0, "store"
    apart, together = judge(vectors, given), judge(vectors, given, groups)
    assert apart is not None
    assert together is not None
    column = together.labels.index("store")
    assert together.probabilities[:10, column].max() < apart.probabilities[:10, column].min()


def test_nothing_is_learned_from_test() -> None:
    vectors, labels = embeddings(apart=1.0)
    measured = np.arange(len(labels)) % 4 == 0
    other = labels.copy()
    other[measured] = "bar"
    first, second = judge(vectors, labels, measured=measured), judge(vectors, other, measured=measured)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert (first.probabilities.argmax(1) == first.given).mean() > 0.5
    everything = judge(vectors, labels, measured=np.ones(len(labels), dtype=bool))
    assert everything is not None  # a folder of test photos alone is judged all the same


def test_labels_with_too_few_photos_are_not_judged() -> None:
    vectors, labels = embeddings()
    given = labels.astype(object)
    given[:3] = "attic"
    judged = judge(vectors, given.astype(str))
    assert judged is not None
    assert "attic" not in judged.labels
    assert len(judged.rows) == len(labels) - 3
    assert judge(vectors[:EACH], labels[:EACH]) is None
    (few,) = few_photos(photos_of(given))
    assert (few.label, few.score) == ("attic", 0.9)


def test_labels_that_mean_the_same_are_confusable() -> None:
    vectors, labels = embeddings()
    given = labels.copy()
    mixed = np.random.default_rng(1).permutation(EACH)
    given[mixed[: EACH // 2]] = "saloon"  # half of the bars have another name
    judged = judge(vectors, given)
    assert judged is not None
    (pair,) = confusable_labels(judged, np.zeros(0, dtype=np.int64))
    assert {pair.label, pair.other} == {"bar", "saloon"}
    assert pair.score > 0.5


def test_a_photo_of_something_else_is_an_outlier() -> None:
    vectors, labels = embeddings()
    vectors[7] = -vectors[7]
    groups = np.arange(len(labels))
    nobody = np.zeros(len(labels), dtype=bool)
    strange = strangeness(vectors, labels.tolist(), groups)
    found = list(outliers(photos_of(labels), strange, nobody))
    assert found[0].path == "007"
    assert len(found) < 10
    nobody[7] = True
    assert "007" not in {finding.path for finding in outliers(photos_of(labels), strange, nobody)}


def test_a_copy_does_not_make_an_outlier_usual() -> None:
    vectors, labels = embeddings()
    vectors[7] = vectors[8] = -vectors[7]
    groups = np.arange(len(labels))
    groups[8] = 7
    apart = strangeness(vectors, labels.tolist(), np.arange(len(labels)))
    together = strangeness(vectors, labels.tolist(), groups)
    assert together[7] > apart[7]


def facts(size: int, sharpness: float) -> Facts:
    return Facts("x", width=size, height=size, sharpness=sharpness)


def test_shortcuts_are_named() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(LABELS, EACH)
    sources = random.choice(["phone", "portal:a", "portal:b"], len(labels))
    sources[labels == "bar"] = "archive"
    photos = [
        Listed(str(n), str(label), "", str(source))
        for n, (label, source) in enumerate(zip(labels, sources, strict=True))
    ]
    # Photos of offices are small, sharpness says nothing.
    known = [facts(128 if label == "office" else 500, random.normal()) for label in labels]
    attributes_ = attributes(photos, known)
    assert [one.name for one in attributes_] == ["source", "size", "sharpness"]
    found = {(f.kind, f.label, f.other) for f in shortcuts(photos, attributes_)}
    assert found == {
        ("single_source", "bar", "archive"),
        ("shortcut", "bar", "source"),
        ("shortcut", "office", "size"),
    }
    by_name = {one.attribute: one for one in associations(photos, attributes_)}
    assert by_name["sharpness"].information < 0.05 < 0.3 < by_name["size"].information
    assert by_name["size"].label_from_it > by_name["size"].label_by_chance + 0.15
    assert abs(by_name["sharpness"].label_from_it - 0.25) < 0.1


def test_one_source_for_everything_is_no_shortcut() -> None:
    labels = np.repeat(LABELS, EACH)
    photos = photos_of(labels, "phone")
    known = [facts(500, 0.0)] * len(labels)
    assert attributes(photos, known) == []
    assert list(shortcuts(photos, [])) == []
