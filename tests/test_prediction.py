from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cascade.errors import ImageError
from cascade.prediction import ErrorInfo, Opinion, Prediction

ANSWER = Prediction(
    path="photos/a.jpg",
    label="kitchen",
    parent="indoor",
    confidence=0.91234567,
    reason="leaf",
    top=(("kitchen", 0.91234567), ("bed", 0.05)),
    general=Opinion("general", "bed", 0.5),
    experts=(Opinion("rooms", "kitchen", 0.75),),
    warnings=("truncated: only 80 % of the photo's rows could be read",),
    ms={"decode": 1.23456, "total": 9.0},
    label_set=("kitchen", "bed"),
    scope_score=1.23456789,
)
FAILURE = Prediction(path="b.jpg", status="error", error=ErrorInfo("empty", "the file is empty"))


def test_keys_are_stable() -> None:
    keys = ["path", "status", "error", "label", "parent", "confidence", "reason", "top", "general", "experts",
            "warnings", "ms", "label_set", "scope_score"]  # fmt: skip
    # Users parse these. A key may be added at the end of this list, none may go or change its place.
    assert list(ANSWER.to_dict()) == keys
    assert list(FAILURE.to_dict()) == keys
    assert list(Prediction(label="bed", confidence=1.0).to_dict()) == keys


def test_the_json_form_of_an_answer() -> None:
    assert ANSWER.to_dict() == {
        "path": "photos/a.jpg",
        "status": "ok",
        "error": None,
        "label": "kitchen",
        "parent": "indoor",
        "confidence": 0.912346,
        "reason": "leaf",
        "top": [{"label": "kitchen", "probability": 0.912346}, {"label": "bed", "probability": 0.05}],
        "general": {"label": "bed", "confidence": 0.5},
        "experts": [{"name": "rooms", "label": "kitchen", "confidence": 0.75}],
        "warnings": ["truncated: only 80 % of the photo's rows could be read"],
        "ms": {"decode": 1.23, "total": 9.0},
        "label_set": ["kitchen", "bed"],
        "scope_score": 1.234568,
    }


def test_the_json_form_of_a_failure() -> None:
    data = FAILURE.to_dict()
    assert data["status"] == "error"
    assert data["error"] == {"code": "empty", "message": "the file is empty"}
    assert data["label"] is data["parent"] is data["confidence"] is data["reason"] is data["general"] is None
    assert data["top"] == data["experts"] == data["warnings"] == []


@pytest.mark.parametrize("prediction", [ANSWER, FAILURE])
def test_the_json_form_is_json(prediction: Prediction) -> None:
    assert json.loads(json.dumps(prediction.to_dict(), allow_nan=False)) == prediction.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "maybe", "label": "bed", "confidence": 0.5}, "status is 'maybe'"),
        ({"status": "error"}, "an error needs status 'error'"),
        (
            {"label": "bed", "confidence": 0.5, "error": ErrorInfo("empty", "m")},
            "an error needs status 'error'",
        ),
        ({}, "an answer needs status 'ok'"),
        ({"label": "bed"}, "an answer needs status 'ok'"),
        ({"confidence": 0.5}, "an answer needs status 'ok'"),
        (
            {"status": "error", "error": ErrorInfo("empty", "m"), "label": "bed", "confidence": 0.5},
            "an answer needs status 'ok'",
        ),
        ({"label": "bed", "confidence": -0.01}, "confidence is -0.01"),
        ({"label": "bed", "confidence": 1.1}, "confidence is 1.1"),
        ({"label": "bed", "confidence": float("nan")}, "confidence is nan"),
        ({"label": "bed", "confidence": 0.5, "warnings": ("odd: x",)}, "unknown warning code 'odd'"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prediction(**fields)


def test_rounding_above_one_is_forgiven_and_never_shown() -> None:
    # float32 probabilities that sum to one can exceed it in the last digit.
    assert Prediction(label="bed", confidence=1.0 + 5e-7).to_dict()["confidence"] == 1.0


def test_predictions_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ANSWER.label = "bed"  # type: ignore[misc]


def test_time_does_not_make_answers_differ() -> None:
    assert dataclasses.replace(ANSWER, ms={"total": 1.0}) == ANSWER
    assert dataclasses.replace(ANSWER, label="bed") != ANSWER


def test_raise_for_error() -> None:
    assert ANSWER.ok
    assert ANSWER.raise_for_error() is ANSWER
    assert not FAILURE.ok
    with pytest.raises(ImageError, match=r"empty: b\.jpg: the file is empty") as caught:
        FAILURE.raise_for_error()
    assert caught.value.code == "empty"
