"""Says whether source, size or sharpness give labels away: a model learns that instead of what is shown.

For each label and each of the three: how well the label is told from all others by that alone, as the mean of
both shares that are right (balanced accuracy; 0.5 is chance), learned on one half of the photos and
measured on the other. For all labels together: normalised mutual information, and how often one is guessed
right from the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cascade.arrays import Bools, Ints
from cascade.audit.examine import Facts
from cascade.audit.finding import Finding
from cascade.audit.listing import Listed

__all__ = ["Association", "Attribute", "associations", "attributes", "few_photos", "shortcuts"]

#: Share of a label's photos from one source from which the label hangs on it.
_ONE_SOURCE: Final = 0.9
#: If nearly all photos are of one source, it tells no label from another.
_COMMON_SOURCE: Final = 0.9
#: Balanced accuracy from which an attribute tells a label.
_TELLS: Final = 0.85
#: A label with fewer photos is not looked at.
_FEWEST: Final = 20
#: Photos that a label should have, so that some can train, calibrate and measure.
_ENOUGH: Final = 30
#: Sizes and sharpness are cut into so many groups of equal size.
_GROUPS: Final = 8
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something that is known of every photo besides its content.

    Attributes:
        name: "source", "size" or "sharpness".
        values: (N,), the number of the group that a photo belongs to.
    """

    name: str
    values: Ints


@dataclass(frozen=True, slots=True)
class Association:
    """How much labels and an attribute say about each other.

    Attributes:
        attribute: its name.
        information: normalised mutual information, 0..1, adjusted for chance.
        label_from_it: share of photos whose label is guessed from the attribute, of photos not learned from.
        label_by_chance: share that the most frequent label has.
        it_from_label: share of photos whose attribute is guessed from the label.
        it_by_chance: share that its most frequent value has.
    """

    attribute: str
    information: float
    label_from_it: float
    label_by_chance: float
    it_from_label: float
    it_by_chance: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


def attributes(photos: Sequence[Listed], facts: Sequence[Facts]) -> list[Attribute]:
    """Return what differs between the photos: sources if several are known, sizes, and sharpness.

    Args:
        photos: N, all of them readable.
        facts: of each.
    """
    collections = np.array([photo.collection for photo in photos], dtype=str)
    size = np.array([min(fact.width, fact.height) for fact in facts], dtype=np.float64)
    found = {
        "source": np.unique(collections, return_inverse=True)[1],
        "size": _cut(size),
        "sharpness": _cut(np.array([fact.sharpness for fact in facts], dtype=np.float64)),
    }
    return [Attribute(name, values) for name, values in found.items() if len(np.unique(values)) > 1]


def _cut(values: Any) -> Ints:
    """Return which of some groups of equal size each value belongs to; equal values stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _GROUPS + 1)[1:-1], method="nearest"))
    return np.asarray(np.searchsorted(edges, values, side="left"), dtype=np.int64)


def associations(photos: Sequence[Listed], known: Sequence[Attribute]) -> list[Association]:
    """Return how much labels and each attribute say about each other."""
    from sklearn.metrics import adjusted_mutual_info_score

    labels = np.unique([photo.label for photo in photos], return_inverse=True)[1]
    found = []
    for attribute in known:
        information = adjusted_mutual_info_score(labels, attribute.values)
        found.append(
            Association(
                attribute.name,
                max(float(information), 0.0),
                _guessed(attribute.values, labels),
                float(np.bincount(labels).max() / len(labels)),
                _guessed(labels, attribute.values),
                float(np.bincount(attribute.values).max() / len(labels)),
            )
        )
    return found


def _guessed(given: Ints, wanted: Ints) -> float:
    """Return how often the value that is most frequent with ``given`` in one half is right in the other."""
    right = 0
    for learned, measured in _halves(len(given)):
        counts = np.zeros((given.max() + 1, wanted.max() + 1))
        np.add.at(counts, (given[learned], wanted[learned]), 1.0)
        counts += np.bincount(wanted[learned], minlength=counts.shape[1]) / len(
            given
        )  # for what was not seen
        right += int((counts.argmax(1)[given[measured]] == wanted[measured]).sum())
    return right / len(given)


def _halves(count: int) -> list[tuple[Ints, Ints]]:
    order = np.random.default_rng(_SEED).permutation(count)
    first, second = order[: count // 2], order[count // 2 :]
    return [(first, second), (second, first)]


def shortcuts(photos: Sequence[Listed], known: Sequence[Attribute]) -> Iterator[Finding]:
    """Yield the labels that hang on one source, and those that an attribute tells; the strongest first."""
    names = np.array([photo.label for photo in photos])
    labels = [str(label) for label in np.unique(names) if (names == label).sum() >= _FEWEST]
    yield from _single_sources(photos, labels)
    found = []
    for attribute in known:
        for label in labels:
            told = _told(names == label, attribute.values)
            if told >= _TELLS:
                found.append((told, attribute.name, label))
    for told, name, label in sorted(found, reverse=True):
        text = f"its {name} alone tells it from the others: {100 * told:.0f} % right (chance: 50 %)"
        yield Finding("shortcut", "", label, told, text, other=name)


def _single_sources(photos: Sequence[Listed], labels: Sequence[str]) -> Iterator[Finding]:
    everywhere = Counter(photo.collection for photo in photos if photo.collection)
    found = []
    for label in labels:
        mine = [photo.collection for photo in photos if photo.label == label]
        source, count = Counter(mine).most_common(1)[0]
        share, common = count / len(mine), everywhere[source] / len(photos)
        if source and share >= _ONE_SOURCE and common < _COMMON_SOURCE:
            found.append((share, label, source, common))
    for share, label, source, common in sorted(found, reverse=True):
        text = (
            f"{100 * share:.0f} % of its photos are from {source}, as are {100 * common:.0f} % of all photos"
        )
        yield Finding("single_source", "", label, share, text, other=source)


def _told(mine: Bools, values: Ints) -> float:
    """Return the balanced accuracy of telling photos by their values, learned on one half each."""
    right = []
    for learned, measured in _halves(len(mine)):
        counts = [
            np.bincount(values[learned][mine[learned] == ours], minlength=values.max() + 1) for ours in (0, 1)
        ]
        others, ours = (count / max(count.sum(), 1) for count in counts)
        said = (ours > others)[values[measured]]
        truth = mine[measured]
        if truth.any() and not truth.all():
            right.append((said[truth].mean() + (~said[~truth]).mean()) / 2)
    return float(np.mean(right)) if right else 0.5


def few_photos(photos: Sequence[Listed]) -> Iterator[Finding]:
    """Yield the labels with too few photos, the fewest first."""
    counts = Counter(photo.label for photo in photos)
    for label, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        if count < _ENOUGH:
            text = f"{count} photos; {_ENOUGH} are few"
            yield Finding("few_photos", "", label, 1.0 - count / _ENOUGH, text)
