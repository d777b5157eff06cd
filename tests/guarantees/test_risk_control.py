"""Promises at run time: the point that is given keeps to what was tested, and too much is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade import Cascade
from cascade.errors import BundleError, UsageError
from cascade.guarantees.risk_control import Promise, PromisePoint
from cascade.labels import LabelTree
from cascade.policy import decide

TREE = LabelTree(tuple("abcd"), {"a": "x", "b": "x", "c": "y", "d": "z"})
PROMISE = Promise(
    confidence=0.95,
    photos=400,
    method="a test",
    cost_weight=0.02,
    scope_threshold=1.5,
    curve=(PromisePoint(0.03, 0.95, 0.9), PromisePoint(0.1, 0.8, 0.6), PromisePoint(0.3, 0.5, 0.4)),
)
#: The same without a scope stage, as the tiny bundle has none.
PLAIN = PROMISE.replace(scope_threshold=None)


@pytest.fixture
def promising(tiny_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny bundle with a promise."""
    import shutil

    def make(**changes: Any) -> Path:
        folder = tmp_path / "promising"
        shutil.copytree(tiny_bundle, folder)
        path = folder / "bundle.json"
        data = json.loads(path.read_text()) | {"promise": PLAIN.to_dict()} | changes
        path.write_text(json.dumps(data))
        return folder

    return make


@pytest.mark.parametrize(
    ("asked", "leaf"), [(0.03, 0.95), (0.05, 0.95), (0.1, 0.8), (0.29, 0.8), (0.3, 0.5), (0.9, 0.5)]
)
def test_between_two_points_the_stricter_one_holds(asked: float, leaf: float) -> None:
    point = PROMISE.operating_point(asked)
    assert point.leaf_threshold == leaf
    assert (point.max_error, point.cost_weight, point.scope_threshold) == (asked, 0.02, 1.5)


def test_too_much_is_refused_and_the_smallest_is_named() -> None:
    with pytest.raises(UsageError, match=r"0\.02 cannot be promised.*smallest that can is 0\.03.*400 photos"):
        PROMISE.operating_point(0.02)


@pytest.mark.parametrize("asked", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_what_is_no_share_is_refused(asked: float) -> None:
    with pytest.raises(UsageError, match="it is a share between 0 and 1"):
        PROMISE.operating_point(asked)


def test_a_share_may_have_a_scope_of_its_own() -> None:
    narrow = msgspec.structs.replace(PROMISE, curve=(PromisePoint(0.03, 0.95, 0.9, 1.0), *PROMISE.curve[1:]))
    assert PROMISE.scope_threshold is not None
    assert narrow.operating_point(0.04).scope_threshold == 1.0 < PROMISE.scope_threshold
    assert narrow.operating_point(0.1).scope_threshold == PROMISE.scope_threshold
    assert Promise.from_dict(json.loads(json.dumps(narrow.to_dict()))) == narrow


def test_promises_survive_json() -> None:
    assert Promise.from_dict(json.loads(json.dumps(PROMISE.to_dict()))) == PROMISE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"curve": []}, r"curve is \[\]; expected `array` of length >= 1"),
        ({"curve": [[0.0, 0.5, 0.5]]}, r"curve\[0\]\[0\] is 0.0; expected `float` > 0.0"),
        ({"curve": [[0.1, 1.5, 0.5]]}, r"curve\[0\]\[1\] is 1.5; expected `float` <= 1.0"),
        ({"curve": [[0.1, 0.5, 0.5], [0.1, 0.4, 0.4]]}, "max_error does not rise after 0.1"),
        ({"curve": [[0.1, 0.5, 0.5], [0.2, 0.6, 0.4]]}, "a threshold rises at max_error 0.2"),
        ({"curve": [[0.1, 0.5, 0.5], [0.2, 0.5, 0.6]]}, "a threshold rises at max_error 0.2"),
        ({"curve": [[0.1, 0.5]]}, r"curve\[0\] is \[0.1, 0.5\]; expected `array` of length 3 to 4"),
        ({"curve": [[0.1, 0.5, 0.5, 99.0]]}, "a scope threshold of the curve is above its scope_threshold"),
        ({"photos": "many"}, "photos is 'many'; expected `int`"),
    ],
)
def test_curves_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Promise.from_dict(PROMISE.to_dict() | changes)


rows = hnp.arrays(np.float64, (12, 4), elements=st.floats(0.01, 1)).map(lambda w: w / w.sum(1, keepdims=True))
shares = st.floats(0.03, 0.99)


@given(rows, st.lists(st.floats(0, 3), min_size=12, max_size=12), shares, shares)
def test_raising_max_error_never_lowers_coverage(
    probabilities: np.ndarray, scores: list[float], one: float, other: float
) -> None:
    fineness = {"out_of_scope": 0, "doubtful": 0, "parent": 1, "leaf": 2}
    strict, lax = (PROMISE.operating_point(share) for share in sorted((one, other)))
    for row, score in zip(probabilities, scores, strict=True):
        before, after = (decide(row, TREE, point, score) for point in (strict, lax))
        assert fineness[before.reason] <= fineness[after.reason]


@given(rows)
def test_a_parent_s_probability_is_the_sum_of_its_leaves(probabilities: np.ndarray) -> None:
    sums = TREE.parent_probabilities(probabilities)
    for column, parent in enumerate(TREE.parents):
        own = [i for i, label in enumerate(TREE.labels) if TREE.parent_of[label] == parent]
        np.testing.assert_allclose(sums[:, column], probabilities[:, own].sum(1))
    np.testing.assert_allclose(sums.sum(1), 1)


# --- the cascade keeps to it -----------------------------------------------------------------------------


def test_max_error_is_an_operating_point(promising: Callable[..., Path], photo: Callable[..., Path]) -> None:
    folder = promising()
    murky = photo("murky.png", (150, 100, 90))
    reasons = [Cascade(folder, max_error=share).predict(murky).reason for share in (0.03, 0.3)]
    assert reasons[0] != "leaf"
    point = Cascade(folder, max_error=0.2).operating_point
    assert (point.leaf_threshold, point.cost_weight, point.max_error) == (0.8, 0.02, 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_error": 0.01}, "the smallest that can is 0.03"),
        ({"max_error": 0.1, "operating_point": "strict"}, "leave out operating_point"),
        ({"max_error": 0.1, "ask": "never"}, "with ask='never' nothing is promised"),
        ({"max_error": 0.1, "ask": "always"}, "with ask='always' nothing is promised"),
    ],
)
def test_what_was_not_tested_is_not_promised(
    promising: Callable[..., Path], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Cascade(promising(), **arguments)


def test_a_bundle_without_a_promise_says_so(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="'tiny' promises nothing about errors"):
        Cascade(tiny_bundle, max_error=0.1)


def test_a_scope_threshold_needs_the_stage(promising: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="a scope threshold needs the stage 'scope'"):
        Cascade(promising(promise=PROMISE.to_dict()))


def test_the_command_line_takes_it(
    promising: Callable[..., Path], photo: Callable[..., Path], run_cli: Callable[..., Any]
) -> None:
    folder, path = promising(), photo()
    ran = run_cli("classify", path, "--bundle", folder, "--max-error", "0.05", "-f", "jsonl")
    assert ran.code == 0
    assert json.loads(ran.out)["reason"] in ("leaf", "parent", "doubtful")
    ran = run_cli("classify", path, "--bundle", folder, "--max-error", "0.01")
    assert (ran.code, ran.out) == (2, "")
    assert "the smallest that can is 0.03" in ran.err
