"""`cascade.validated`: what is built and what is read obey one declaration, and errors name the place."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
import pytest

from cascade.errors import BundleError, CascadeError, RecipeError
from cascade.validated import OpenShare, Positive, Share, Validated


class Pair(NamedTuple):
    low: Share
    high: OpenShare


class Part(Validated, frozen=True, forbid_unknown_fields=True):
    share: Share
    kind: Literal["a", "b"] = "a"


class Whole(Validated, frozen=True, kw_only=True):
    parts: dict[str, Part]
    pairs: tuple[Pair, ...] = ()
    part: Part | None = None
    numbers: Annotated[tuple[tuple[float, Positive], ...], msgspec.Meta(min_length=1)] = ((0, 1),)
    other: dict[str, Any] = msgspec.field(default_factory=dict)


GOOD = {"parts": {"first": {"share": 1}, "second": {"share": 0.5}}, "pairs": [[0, 0.5]], "part": {"share": 0}}


def test_values_become_what_is_declared() -> None:
    whole = Whole.from_dict(GOOD)
    assert whole.pairs == (Pair(0.0, 0.5),)
    assert type(whole.pairs[0].low) is float
    assert Whole.from_dict(whole.to_dict()) == whole
    built = Part(np.float32(0.5), kind="b")
    assert (type(built.share), built.share) == (float, 0.5)


def test_what_nobody_declared_becomes_json_all_the_same() -> None:
    class Version(str):
        pass

    other = {"version": Version("1"), "share": np.float32(0.5), "count": np.int64(3), "pair": (1, 2)}
    form = Whole.from_dict(GOOD | {"other": other}).to_dict()["other"]
    assert json.loads(json.dumps(form)) == {"version": "1", "share": 0.5, "count": 3, "pair": [1, 2]}
    with pytest.raises(TypeError, match="object has no JSON form"):
        Whole.from_dict(GOOD | {"other": {"thing": object()}}).to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {"a": {"share": 1}, "b": {"share": 2}}}, "parts.b.share is 2; expected `float` <= 1.0"),
        ({"parts": {"a": {"size": 1}}}, "parts.a: contains unknown field `size`; it knows share, kind"),
        ({"part": {"share": 1, "kind": "c"}}, "part.kind is 'c'; expected 'a' or 'b'"),
        ({"part": {}}, "part: missing required field `share`"),
        ({"part": 7}, "part is 7; expected `object | null`, got `int`"),
        ({"pairs": [[0, 0.5], [0, 1]]}, "pairs[1][1] is 1; expected `float` < 1.0"),
        ({"pairs": [[0]]}, "pairs[0] is [0]; expected `array` of length 2, got 1"),
        ({"numbers": [[0, 1], [0, 0]]}, "numbers[1][1] is 0; expected `float` > 0.0"),
        ({"numbers": []}, "numbers is []; expected `array` of length >= 1"),
        ({"parts": "x" * 500}, "parts is '" + "x" * 76 + "...; expected `object`, got `str`"),
    ],
)  # fmt: skip
def test_the_place_the_value_and_what_would_be_right_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as read:
        Whole.from_dict(GOOD | change)
    assert str(read.value) == message
    with pytest.raises(BundleError) as built:
        Whole(**(GOOD | change))
    assert str(built.value) == f"Whole.{message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [({}, "missing required field `parts`"), ([], "it is []; expected `object`, got `array`")],
)
def test_the_whole_has_no_place(data: Any, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        Whole.from_dict(data)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, None, "1", True])
def test_what_is_built_or_changed_is_checked(value: Any) -> None:
    with pytest.raises(BundleError, match=r"Part\.share is"):
        Part(value)
    with pytest.raises(BundleError, match=r"Part\.share is"):
        Part(0.5).replace(share=value)


def test_nothing_can_be_assigned() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Part(0.5).share = 2.0  # type: ignore[misc]


def test_a_record_may_name_another_error() -> None:
    class Section(Validated, frozen=True):
        error_type: ClassVar[type[CascadeError]] = RecipeError
        share: Share

    with pytest.raises(RecipeError, match=r"Section\.share is 2"):
        Section(2)
    with pytest.raises(RecipeError, match="share is 2"):
        Section.from_dict({"share": 2})
