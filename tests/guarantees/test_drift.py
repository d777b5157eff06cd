"""Drift: quiet when nothing changed, loud and with the right reason when something did."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra `drift`")

from conftest import COLOURS

from cascade import Bundle, BundleError, Cascade, UsageError
from cascade.guarantees.drift import FEWEST_PHOTOS, LEVEL, Reference, check_drift, holm
from cascade.prediction import ErrorInfo, Opinion, Prediction

LABELS = ("bed", "kitchen", "beach", "menu")


def stream(
    n: int, seed: int, *, surer: float = 0.0, stranger: float = 0.0, asked: float = 0.3, menu: float = 0.25
) -> list[Prediction]:
    """Predictions of a made-up bundle; without arguments they are like those of the reference."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4 + surer, 2, n)
    scores = rng.normal(1 + stranger, 0.3, n)
    others = (1 - menu) / 3
    labels = rng.choice(LABELS, n, p=[others, others, others, menu])
    experts = rng.random(n) < asked
    return [
        Prediction(
            label=str(label),
            confidence=float(p),
            reason="leaf",
            top=((str(label), float(p)),),
            experts=(Opinion("rooms", "bed", 0.5),) if expert else (),
            scope_score=float(score),
        )
        for label, p, expert, score in zip(labels, confidence, experts, scores, strict=True)
    ]


def reference(seed: int = 0, n: int = 467) -> Reference:
    rows = stream(n, seed)
    found = [row.label for row in rows]
    return Reference(
        confidences=tuple(sorted(row.confidence or 0.0 for row in rows)),
        scope_scores=tuple(sorted(row.scope_score or 0.0 for row in rows)),
        labels={label: found.count(label) for label in LABELS},
        deferred=sum(bool(row.experts) for row in rows),
    )


def test_false_alarms_are_rare() -> None:
    alarms = sum(not check_drift(reference(seed), stream(300, 1000 + seed)).trusted for seed in range(150))
    assert alarms <= 5  # 1.5 expected at a level of 1 %; six would be one in a thousand


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"surer": -3}, "confidence", "the model is less sure"),
        ({"surer": 12}, "confidence", "the model is surer"),
        ({"stranger": 0.4}, "strangeness", "photos are stranger"),
        ({"stranger": -0.4}, "strangeness", "photos are more ordinary"),
        ({"asked": 0.6}, "deferral", "experts are asked about"),
        ({"menu": 0.8}, "label mix", "most of all menu with"),
    ],
)
def test_every_kind_of_drift_is_seen_and_named(change: dict[str, float], name: str, words: str) -> None:
    report = check_drift(reference(), stream(300, 1, **change))
    assert report.trusted is False
    assert [test.name for test in report.tests if test.drifted] == [name]
    assert report.verdict.startswith("Drift was found, so do not rely on the promise for these 300 photos: ")
    assert words in report.verdict
    assert "\n" not in report.verdict


def test_what_does_not_matter_is_no_drift() -> None:
    """With a hundred thousand photos a hair's difference is significant; it does not break a promise."""
    report = check_drift(reference(n=20_000), stream(20_000, 1, surer=0.15))
    assert report.tests[0].p_value < LEVEL
    assert report.trusted is True


def test_too_few_photos_say_nothing() -> None:
    report = check_drift(reference(), stream(FEWEST_PHOTOS - 1, 1, stranger=5))
    assert (report.trusted, report.tests) == (None, ())
    assert "29 photos are too few" in report.verdict
    assert check_drift(reference(), stream(FEWEST_PHOTOS, 1, stranger=5)).trusted is False


def test_photos_that_could_not_be_read_are_left_out() -> None:
    bad = Prediction(path="x", status="error", error=ErrorInfo("empty", "no bytes"))
    rows = stream(100, 1)
    assert check_drift(reference(), [*rows, *[bad] * 50]) == check_drift(reference(), rows)


def test_a_stream_in_another_order_is_the_same_stream() -> None:
    rows = stream(200, 1, menu=0.4)
    assert check_drift(reference(), rows) == check_drift(reference(), rows[::-1])


def test_predictions_of_another_bundle_are_refused() -> None:
    rows = [dataclasses.replace(row, top=(("zebra", 0.5),)) for row in stream(40, 1)]
    with pytest.raises(UsageError, match="'zebra' is no label"):
        check_drift(reference(), rows)
    with pytest.raises(UsageError, match="without scope scores"):
        check_drift(reference(), [dataclasses.replace(row, scope_score=None) for row in stream(40, 1)])


def test_a_bundle_without_scope_stage_is_compared_without_it() -> None:
    plain = reference().replace(scope_scores=())
    names = [test.name for test in check_drift(plain, stream(100, 1)).tests]
    assert names == ["confidence", "deferral", "label mix"]


def test_the_correction_is_holm_s() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_references_survive_json() -> None:
    assert Reference.from_dict(json.loads(json.dumps(reference().to_dict()))) == reference()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deferred": 1000}, "not those of the same photos"),
        ({"labels": {"bed": 1}}, "not those of the same photos"),
        ({"confidences": []}, "not those of the same photos"),
        ({"scope_scores": [1.0]}, "one scope score per photo"),
        ({"labels": ["bed"]}, r"labels is \['bed'\]; expected `object`"),
    ],
)
def test_references_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Reference.from_dict(reference().to_dict() | changes)


def test_the_command(
    tiny_bundle: Path, tmp_path: Path, photo: Callable[..., Path], run_cli: Callable[..., Any]
) -> None:
    """The reference is made of photos of every colour; a folder of one colour has another mix."""
    import shutil

    even = [photo(f"even/{colour}{i}.png", colour) for colour in COLOURS for i in range(8)]
    for i in range(40):
        photo(f"beaches/{i}.png", "beach")
    ran = run_cli("evaluate", "--drift", tmp_path / "even")
    assert ran.code == 2
    assert "has no reference" in ran.err

    rows = list(Cascade(tiny_bundle).predict_many(even))
    labels = [row.top[0][0] for row in rows]
    made = Reference(
        confidences=tuple(sorted(row.top[0][1] for row in rows)),
        scope_scores=(),
        labels={label: labels.count(label) for label in COLOURS},
        deferred=sum(bool(row.experts) for row in rows),
    )
    home = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, home)
    data = json.loads((home / "bundle.json").read_text()) | {"reference": made.to_dict()}
    (home / "bundle.json").write_text(json.dumps(data))
    assert Bundle.load(home).reference == made
    same = run_cli("evaluate", "--drift", tmp_path / "even", "--bundle", home)
    assert same.code == 0
    assert same.out.startswith("No drift was found: ")
    assert "does not prove that the promise holds" in same.out
    other = run_cli("evaluate", "--drift", tmp_path / "beaches", "--bundle", home, "--json", "-")
    found = json.loads(other.out)
    assert found["trusted"] is False
    assert "most of all beach with 100% instead of 20%" in found["verdict"]
    refused = run_cli("evaluate", "--drift", tmp_path / "even", "--bundle", home, "--max-error", "0.1")
    assert refused.code == 2
    assert "--drift looks at no answers" in refused.err
