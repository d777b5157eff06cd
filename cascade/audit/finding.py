"""Defines `Finding`, one thing that is wrong or odd about labelled photos, and the kinds that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["KINDS", "Finding"]

#: Every kind of finding, in the order in which they are shown, and what it means.
KINDS: Final[dict[str, str]] = {
    "corrupt": "the file cannot be read, or only a part of it",
    "exact_duplicate": "the same bytes as another file",
    "near_duplicate": "a changed copy of another photo: cut, compressed, resized, mirrored, marked",
    "mislabelled": "the label is probably another one",
    "outlier": "unlike the other photos of its label",
    "blank": "one colour throughout",
    "part_missing": "the lower part is one colour, as after a broken download",
    "grey": "grey among photos that are in colour",
    "tiny": "few pixels",
    "extreme_aspect": "a long strip",
    "exif": "the EXIF data is damaged, or turns a photo that was turned already",
    "wrong_extension": "the name does not end as the content says",
    "few_photos": "a label with too few photos",
    "single_source": "a label whose photos come from one source",
    "shortcut": "source, size or sharpness alone tell a label",
    "confusable": "two labels that the model cannot tell apart",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or odd.

    Attributes:
        kind: a key of `KINDS`.
        path: of the photo; "" if the finding is about a label.
        label: of the photo, or the label that the finding is about; "" if it is about all photos.
        score: how sure or how strong, 0..1; each kind says in ``detail`` what it counts.
        detail: one sentence for people.
        split: of the photo; "" if the photos have no splits.
        other: the other photo of a pair, the other label, the source, or the attribute; "" if there is none.
        other_label: label of the other photo.
        other_split: split of the other photo.
        suggested: the label that is probably right; "" if there is none.

    Raises:
        ValueError: for an unknown kind, or a score that is not in 0..1.
    """

    kind: str
    path: str
    label: str
    score: float
    detail: str
    split: str = ""
    other: str = ""
    other_label: str = ""
    other_split: str = ""
    suggested: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of finding {self.kind!r}")
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"the score of a finding is {self.score}, not in 0..1")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: every key always there, None where there is nothing to say."""
        return {
            "kind": self.kind,
            "path": self.path or None,
            "other": self.other or None,
            "label": self.label or None,
            "suggested": self.suggested or None,
            "score": round(self.score, 4),
            "split": self.split or None,
            "other_label": self.other_label or None,
            "other_split": self.other_split or None,
            "detail": self.detail,
        }
