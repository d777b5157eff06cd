"""Compares a bundle before and after it learned, and says whether it became worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cascade.arrays import Float32s, Float64s, Floats, Ints
from cascade.bundle.manifest import Bundle
from cascade.evaluation.metrics import (
    PairedDifference,
    negative_log_likelihood,
    paired_difference,
    wilson_interval,
)
from cascade.inference.pipeline import Pipeline
from cascade.inference.routing import choose_experts

__all__ = ["Compared", "answers", "compare", "what_became_worse"]

#: Fewer right answers than this share of what was known count as forgetting, if chance cannot explain them.
_FORGOTTEN: Final = -0.01


@dataclass(frozen=True, slots=True)
class Compared:
    """The same photos before and after.

    Attributes:
        name: of the photos.
        photos: how many there are.
        right: (before, after), how many got their label as the most probable one.
        nll: (before, after), negative log likelihood in nats.
        change: of the accuracy.
    """

    name: str
    photos: int
    right: tuple[int, int]
    nll: tuple[float, float]
    change: PairedDifference

    def lines(self) -> list[str]:
        """Return it in words, with 95 % intervals."""
        lines = [f"{self.name}, {self.photos} photos:"]
        for when, right, nll in zip(("before", "after"), self.right, self.nll, strict=True):
            low, high = wilson_interval(right, self.photos)
            lines.append(
                f"  {when:<6} {right / self.photos:.1%} right ({low:.1%} to {high:.1%}), NLL {nll:.3f}"
            )
        low, high = self.change.interval
        lines.append(
            f"  change {self.change.difference:+.1%} ({low:+.1%} to {high:+.1%}): "
            f"{self.change.helped} mended, {self.change.harmed} broken"
        )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "photos": self.photos,
            "accuracy": [round(right / self.photos, 5) for right in self.right],
            "nll": [round(nll, 5) for nll in self.nll],
            "change": round(self.change.difference, 5),
            "interval": [round(end, 5) for end in self.change.interval],
        }


def answers(bundle: Bundle, logits: Mapping[str, Float32s], labels: int) -> Float64s:
    """Return probabilities (N, L) of a bundle by what its image stages say; it asks by its default point.

    Args:
        bundle: its router and arbiter are used.
        logits: image stage -> (N, K), of every photo.
        labels: L; labels that the bundle does not know have probability 0.
    """
    pipeline, general = Pipeline.of(bundle), logits[bundle.general.name]
    costs = np.array([expert.cost for expert in bundle.experts], dtype=np.float64)
    weight = bundle.operating_points["default"].cost_weight
    asked = choose_experts(pipeline.gain(general), costs, weight)
    heard = {e.name: logits[e.name][asked[:, column]] for column, e in enumerate(bundle.experts)}
    known = pipeline.arbitrate(general, heard, asked)
    found = np.zeros((len(known), labels))
    found[:, : known.shape[1]] = known
    return found


def compare(name: str, before: Floats, after: Floats, truth: Ints) -> Compared | None:
    """Compare probabilities, (N, L) each, of the same photos; None if there are none.

    Args:
        name: of the photos.
        before: of the old bundle.
        after: of the new one.
        truth: (N,), column of the right label.
    """
    if not len(truth):
        return None
    right = [probabilities.argmax(axis=1) == truth for probabilities in (before, after)]
    nll = tuple(negative_log_likelihood(_normal(each), truth) for each in (before, after))
    return Compared(
        name,
        len(truth),
        (int(right[0].sum()), int(right[1].sum())),
        (nll[0], nll[1]),
        paired_difference(right[0], right[1]),
    )


def what_became_worse(corrections: Compared, others: Sequence[Compared]) -> list[str]:
    """Return what speaks against the new bundle, in words; empty if nothing does.

    Args:
        corrections: those that were held out.
        others: what was known before.
    """
    found = []
    (before, after), (old, new) = corrections.right, corrections.nll
    if after < before:
        found.append(f"{before - after} fewer of the {corrections.photos} {corrections.name} are right")
    elif after == before and new > old:
        found.append(
            f"the {corrections.name} are as often right, but less likely (NLL {old:.3f} to {new:.3f})"
        )
    found += [
        f"{-each.change.difference:.1%} fewer of the {each.photos} {each.name} are right, which is no chance"
        for each in others
        if each.change.difference < _FORGOTTEN and each.change.interval.high < 0
    ]
    return found


def _normal(probabilities: Floats) -> Float64s:
    wide = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
