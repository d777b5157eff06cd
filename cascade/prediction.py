"""Defines `Prediction`, the answer for one photo, and its JSON form, which every output uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from cascade.arrays import Floats
from cascade.errors import IMAGE_WARNING_CODES, ImageError

__all__ = ["ErrorInfo", "Opinion", "Prediction"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """The answer of one model on its own.

    Attributes:
        name: ``"general"`` or the expert's name.
        label: its most probable label; `cascade.labels.NOT_MINE` if an expert says that the photo shows
            none of its labels.
        confidence: probability of that label according to this stage alone, 0..1. Only the general
            model's is calibrated; an expert's is its plain softmax.
    """

    name: str
    label: str
    confidence: float

    @classmethod
    def of(cls, name: str, labels: Sequence[str], probabilities: Floats) -> Self:
        """Return the most probable of K labels; ``probabilities`` has shape (K,)."""
        best = int(np.argmax(probabilities))
        return cls(name, labels[best], min(float(probabilities[best]), 1.0))


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a photo has no answer: ``code`` is a key of `cascade.errors.IMAGE_ERROR_CODES`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one photo.

    Attributes:
        path: where the photo came from, if it came from a path.
        status: ``"ok"`` or ``"error"``.
        error: why there is no answer; None when ``status`` is ``"ok"``.
        label: a leaf, a parent or ``"unknown"``; None when ``status`` is ``"error"``.
        parent: the broader label that ``label`` belongs to; None when unknown.
        confidence: calibrated probability of ``label``, 0..1; if unknown, of the best leaf.
        reason: a key of `cascade.policy.REASONS`.
        top: (label, probability) of the most probable leaves, best first.
        general: the answer of the general model alone.
        experts: the answers of the experts that were asked.
        warnings: what was odd about the photo, ``"code: message"`` each; the codes are those of
            `cascade.errors.IMAGE_WARNING_CODES`.
        ms: milliseconds per stage and in total; in a batch, a stage's time is shared evenly among the
            photos that it ran on.
        label_set: if it was asked for, the labels that contain the right one with the wanted probability,
            the most probable first.
        scope_score: how unlike the photos of the training it is, without a unit; higher is stranger. None if
            the bundle has no scope stage.

    Raises:
        ValueError: when the fields contradict each other.
    """

    path: str | None = None
    status: str = "ok"
    error: ErrorInfo | None = None
    label: str | None = None
    parent: str | None = None
    confidence: float | None = None
    reason: str | None = None
    top: tuple[tuple[str, float], ...] = ()
    general: Opinion | None = None
    experts: tuple[Opinion, ...] = ()
    warnings: tuple[str, ...] = ()
    ms: Mapping[str, float] = field(default_factory=dict, compare=False)
    label_set: tuple[str, ...] = ()
    scope_score: float | None = None

    def __post_init__(self) -> None:
        if self.status not in ("ok", "error"):
            raise ValueError(f"status is {self.status!r}, not 'ok' or 'error'")
        if (self.status == "error") != (self.error is not None):
            raise ValueError("an error needs status 'error', and the other way round")
        if (self.status == "ok") != (self.label is not None and self.confidence is not None):
            raise ValueError("an answer needs status 'ok', a label and a confidence")
        if self.confidence is not None and not 0.0 <= self.confidence <= 1.0 + 1e-6:
            raise ValueError(f"confidence is {self.confidence}, not in 0..1")
        unknown = {warning.partition(":")[0] for warning in self.warnings} - set(IMAGE_WARNING_CODES)
        if unknown:
            raise ValueError(f"unknown warning code {sorted(unknown)[0]!r}")

    @property
    def ok(self) -> bool:
        """Whether the photo was classified."""
        return self.status == "ok"

    def raise_for_error(self) -> Prediction:
        """Return self, or raise the `ImageError` that this row stands for."""
        if self.error is not None:
            where = f"{self.path}: " if self.path else ""
            raise ImageError(self.error.code, where + self.error.message)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: stable keys, plain values, the same for every output."""
        return {
            "path": self.path,
            "status": self.status,
            "error": None if self.error is None else {"code": self.error.code, "message": self.error.message},
            "label": self.label,
            "parent": self.parent,
            "confidence": _rounded(self.confidence),
            "reason": self.reason,
            "top": [{"label": label, "probability": _rounded(p)} for label, p in self.top],
            "general": None
            if self.general is None
            else {
                "label": self.general.label,
                "confidence": _rounded(self.general.confidence),
            },
            "experts": [
                {"name": e.name, "label": e.label, "confidence": _rounded(e.confidence)} for e in self.experts
            ],
            "warnings": list(self.warnings),
            "ms": {stage: round(value, 2) for stage, value in self.ms.items()},
            "label_set": list(self.label_set),
            "scope_score": None if self.scope_score is None else round(self.scope_score, 6),
        }


def _rounded(value: float | None) -> float | None:
    """Six digits: more than any probability here means, and readable in a table."""
    return None if value is None else round(min(float(value), 1.0), 6)
