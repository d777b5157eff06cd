"""Records whose declaration is their check: the types and ranges of the fields are what values are held to.

The same declaration is applied to what is read from a file (`Validated.from_dict`) and to what is built in
Python, and JSON Schemas are generated from it.
"""

from __future__ import annotations

import re
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from cascade.errors import BundleError, CascadeError

__all__ = ["NonNegative", "OpenShare", "Positive", "Share", "Validated"]

#: 0..1.
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
#: Between 0 and 1, neither of them included.
OpenShare = Annotated[float, msgspec.Meta(gt=0, lt=1)]
#: 0 or more.
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
#: Above 0.
Positive = Annotated[float, msgspec.Meta(gt=0)]

_LONGEST_SHOWN = 80


class Validated(msgspec.Struct, frozen=True):
    """An immutable record that is checked by its own declaration whenever it is made.

    A subclass adds `__post_init__` only for what fields must fulfil together, and calls this one first.

    Raises:
        BundleError: or what a subclass names instead, when a value is of the wrong type or outside its range.
    """

    error_type: ClassVar[type[CascadeError]] = BundleError

    def __post_init__(self) -> None:
        kind = type(self)
        for name, field_type in _field_types(kind).items():
            value = getattr(self, name)
            if value is msgspec.UNSET:
                continue
            value = value.item() if isinstance(value, np.generic) else value
            try:
                checked = msgspec.convert(value, field_type)
            except msgspec.ValidationError as error:
                text = _explanation(f".{name}", field_type, value, error)
                raise self.error_type(f"{kind.__name__}{text}") from None
            msgspec.structs.force_setattr(self, name, checked)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build from the JSON form; the error names the place, the value and what would be right."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise cls.error_type(_explanation("", cls, data, error).removeprefix(".")) from None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; it is checked like any other."""
        return msgspec.structs.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; arrays are tuples."""
        form: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_plain)
        return form


def _plain(value: Any) -> Any:
    """Return a number of numpy, or a text of a class of its own (torch's version), as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _field_types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _explanation(place: str, kind: Any, value: Any, error: msgspec.ValidationError) -> str:
    """Return the place, the value that stands there and what is wrong with it.

    Args:
        place: of ``value``.
        kind: declared type of ``value``.
        value: what was refused.
        error: of msgspec, whose message ends with the path from ``value`` to what is wrong.
    """
    text, _, path = str(error).partition(" - at `$")
    kind = _without_none(kind)
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        if name:
            kind, value, place = _field_types(kind)[name], value[name], f"{place}.{name}"
        elif index == "...":  # msgspec does not name the key of a mapping
            kind = get_args(kind)[-1]
            key = next(key for key, item in value.items() if not _fits(item, kind))
            value, place = value[key], f"{place}.{key}"
        else:
            parts = get_args(kind) or tuple(get_type_hints(kind, include_extras=True).values())
            kind = parts[0 if Ellipsis in parts or len(parts) == 1 else int(index)]
            value, place = value[int(index)], f"{place}[{index}]"
        kind = _without_none(kind)
    if text.startswith("Object "):
        text = text.removeprefix("Object ")
        known = f"; it knows {', '.join(_field_types(kind))}" if "unknown field" in text else ""
        return f"{place}: {text}{known}" if place else text + known
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 3] + "..."
    if get_origin(kind) is Literal:
        text = f"expected {' or '.join(map(repr, get_args(kind)))}"
    return f"{place or 'it'} is {shown}; {text[0].lower()}{text[1:]}"


def _without_none(kind: Any) -> Any:
    """Return the type that a value has which is there: without `Annotated` and without ``| None``."""
    if get_origin(kind) is Annotated:
        return _without_none(kind.__origin__)
    if get_origin(kind) in (Union, UnionType):
        return _without_none(next(part for part in get_args(kind) if part is not NoneType))
    return kind


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
