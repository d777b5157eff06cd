from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.errors import BundleError
from cascade.labels import NOT_MINE, UNKNOWN, LabelTree

ROOMS = LabelTree(
    ("bed", "kitchen", "beach", "menu"),
    {"bed": "indoor", "kitchen": "indoor", "beach": "outdoor", "menu": "menu"},
)


@st.composite
def trees(draw: st.DrawFn) -> LabelTree:
    """Trees of 2 to 12 leaves under 1 to 4 parents, in any order."""
    count = draw(st.integers(2, 12))
    parents = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    labels = tuple(f"leaf{i}" for i in range(count))
    return LabelTree(labels, {label: f"group{p}" for label, p in zip(labels, parents, strict=True)})


def probabilities(count: int) -> st.SearchStrategy[np.ndarray]:
    weights = hnp.arrays(np.float64, count, elements=st.floats(0, 1)).filter(lambda w: w.sum() > 1e-3)
    return weights.map(lambda w: w / w.sum())


def test_parents_are_in_order_of_first_appearance() -> None:
    assert ROOMS.parents == ("indoor", "outdoor", "menu")
    assert ROOMS.membership.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_parent() -> None:
    assert ROOMS.parent("kitchen") == "indoor"
    assert ROOMS.parent("indoor") == "indoor"
    assert ROOMS.parent("menu") == "menu"
    assert ROOMS.parent(UNKNOWN) is None
    assert ROOMS.parent("castle") is None


@pytest.mark.parametrize(
    ("labels", "parent_of", "message"),
    [
        (("a",), {"a": "p"}, "at least two labels"),
        ((), {}, "at least two labels"),
        (("a", "a"), {"a": "p"}, "names a label twice"),
        (("a", "b"), {"a": "p"}, "do not match; look at: b"),
        (("a", "b"), {"a": "p", "b": "p", "c": "p"}, "do not match; look at: c"),
        (("a", UNKNOWN), {"a": "p", UNKNOWN: "p"}, "'unknown' is reserved"),
        (("a", NOT_MINE), {"a": "p", NOT_MINE: "p"}, "'not_mine' is reserved"),
        (("a", "b"), {"a": UNKNOWN, "b": "p"}, "'unknown' is reserved"),
        (("a", "b"), {"a": "b", "b": "b"}, "both a label and the parent of other labels"),
        (("a", "b"), {"a": "b", "b": "a"}, "both a label and the parent of other labels"),
    ],
)
def test_trees_that_make_no_sense_are_refused(
    labels: tuple[str, ...], parent_of: dict[str, str], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        LabelTree(labels, parent_of)


def test_a_group_of_one_may_have_its_own_name() -> None:
    assert LabelTree(("menu", "bed"), {"menu": "menu", "bed": "indoor"}).parents == ("menu", "indoor")


@given(st.data())
def test_parents_sum_their_leaves(data: st.DataObject) -> None:
    tree = data.draw(trees())
    row = data.draw(probabilities(len(tree.labels)))
    sums = tree.parent_probabilities(row)
    assert sums.shape == (len(tree.parents),)
    assert sums.sum() == pytest.approx(1.0)
    for parent, total in zip(tree.parents, sums, strict=True):
        leaves = [p for label, p in zip(tree.labels, row, strict=True) if tree.parent_of[label] == parent]
        assert total == pytest.approx(sum(leaves))


@given(st.data())
def test_many_rows_are_summed_like_one(data: st.DataObject) -> None:
    tree = data.draw(trees())
    rows = np.stack([data.draw(probabilities(len(tree.labels))) for _ in range(3)])
    together = tree.parent_probabilities(rows)
    assert together.shape == (3, len(tree.parents))
    for row, sums in zip(rows, together, strict=True):
        assert np.allclose(tree.parent_probabilities(row), sums)


@given(trees())
def test_every_leaf_belongs_to_exactly_one_parent(tree: LabelTree) -> None:
    assert (tree.membership.sum(axis=1) == 1).all()
    assert (tree.membership.sum(axis=0) >= 1).all()
    for label in tree.labels:
        parent = tree.parent(label)
        assert parent is not None
        assert tree.parent(parent) == parent
