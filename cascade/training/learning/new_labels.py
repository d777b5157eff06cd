"""Adds the labels that corrections bring, and says what each belongs to."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from cascade.errors import BundleError, DataError, UsageError
from cascade.labels import LabelTree

__all__ = ["grown_tree"]

#: A label of fewer photos would be learned from five.
_FEWEST: Final = 8


def grown_tree(
    tree: LabelTree, labels: Sequence[str], parents: Mapping[str, str], groups: Mapping[str, str]
) -> LabelTree:
    """Return the tree with every label that it does not know yet, behind those that it knows.

    Args:
        tree: of the bundle.
        labels: of the photos, one for each.
        parents: new label -> its group, as the user says it.
        groups: new label -> its group, where the user says nothing; without either it is a group of its own.

    Raises:
        DataError: when a new label has too few photos.
        UsageError: when ``parents`` names no new label, or a label of its own group gets company.
    """
    counts = Counter(label for label in labels if label not in tree.parent_of)
    odd = sorted(set(parents) - set(counts))
    if odd:
        known = odd[0] in tree.parent_of
        why = "the bundle knows it already" if known else "no photo has this label"
        raise UsageError(f"--parent {odd[0]}={parents[odd[0]]}: {why}; it is for labels that are new")
    few = sorted(label for label, count in counts.items() if count < _FEWEST)
    if few:
        near = difflib.get_close_matches(few[0], tree.labels, n=1)
        meant = f" (did you mean {near[0]}? say so with --label-map {few[0]}={near[0]})" if near else ""
        raise DataError(
            f"the bundle does not know {few[0]!r}{meant}; to learn it as a new label takes at least "
            f"{_FEWEST} photos, and there are {counts[few[0]]}"
        )
    new = {label: parents.get(label, groups.get(label, label)) for label in sorted(counts)}
    try:
        return LabelTree((*tree.labels, *new), tree.parent_of | new)
    except BundleError as error:
        raise UsageError(f"{error}; give the new label another group with --parent LABEL=GROUP") from error
