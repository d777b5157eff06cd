"""Checks a bundle.json against its published JSON Schema, and names the place and the rule that it breaks.

`cascade/bundle/bundle.schema.json` is the schema, for any tool to use. The light install brings no library
for JSON Schema, so this module applies the dozen keywords that the schema uses; tests hold it to the verdicts
of the jsonschema library, and refuse a schema with a keyword that is not applied here.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from cascade.errors import BundleError

__all__ = ["APPLIED_KEYWORDS", "SCHEMA_FILE", "check_manifest", "read_manifest"]

SCHEMA_FILE: Final = Path(__file__).with_name("bundle.schema.json")

#: A manifest of the shipped bundle has some hundred kilobytes.
_MAX_BYTES: Final = 64 << 20

_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}
#: keyword -> (type that it is about, whether a value obeys, what is said if not)
_RULES: Final[dict[str, tuple[str, Callable[[Any, Any], bool], str]]] = {
    "minimum": ("number", lambda value, limit: value >= limit, "{value} is below {limit}"),
    "maximum": ("number", lambda value, limit: value <= limit, "{value} is above {limit}"),
    "exclusiveMinimum": ("number", lambda value, limit: value > limit, "{value} is not above {limit}"),
    "minLength": ("string", lambda value, limit: len(value) >= limit, "is shorter than {limit} characters"),
    "maxLength": ("string", lambda value, limit: len(value) <= limit, "is longer than {limit} characters"),
    "pattern": (
        "string",
        lambda value, rule: re.search(rule, value) is not None,
        "{value} is not like {limit}",
    ),
    "minItems": ("array", lambda value, limit: len(value) >= limit, "has fewer than {limit} items"),
    "maxItems": ("array", lambda value, limit: len(value) <= limit, "has more than {limit} items"),
}
#: Every keyword that `check_manifest` applies, and those that need no applying.
APPLIED_KEYWORDS: Final = frozenset(
    {*_RULES, "$ref", "allOf", "type", "const", "enum", "required", "properties", "additionalProperties"}
    | {"items", "$schema", "$id", "$defs", "title", "description"}
)


def read_manifest(path: Path) -> Any:
    """Return the parsed content of a bundle.json; what it means is for `check_manifest`.

    Raises:
        BundleError: when it cannot be read or is no JSON; ``path`` is not in the message.
    """
    try:
        with path.open("rb") as file:
            # Room is reserved for as many bytes as are asked for, so ask for what is there.
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, _MAX_BYTES) + 1)
        if len(content) > _MAX_BYTES:
            raise BundleError(f"is larger than {_MAX_BYTES >> 20} MiB, which no manifest is")
        data = json.loads(
            content.decode("utf-8"), parse_constant=_refuse_constant, parse_int=_whole, parse_float=_real
        )
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise BundleError(
            f"is not JSON (line {error.lineno}: {error.msg}); copy the bundle again or train it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"is not JSON ({error}); copy the bundle again or train it again") from error
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _whole(text: str) -> int:
    _real(text)
    return int(text)


def _real(text: str) -> float:
    """Return a number; what no 64 bits can hold is refused here, before anything computes with it."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:12]}... is too large for a number")
    return number


def check_manifest(data: Any) -> None:
    """Check parsed JSON against the schema.

    Raises:
        BundleError: e.g. ``stages.general.sha256: 'x' is not like '^[0-9a-f]{64}$'``.
    """
    schema = _schema()
    _check(data, schema, schema, "")


@cache
def _schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def _check(value: Any, rule: dict[str, Any], schema: dict[str, Any], place: str) -> None:
    if "$ref" in rule:
        _check(value, schema["$defs"][rule["$ref"].removeprefix("#/$defs/")], schema, place)
    for part in rule.get("allOf", ()):
        _check(value, part, schema, place)
    kinds = rule.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        raise _problem(place, f"{_shown(value)} is not of type {' or '.join(kinds)}")
    for allowed in ([rule["const"]], rule.get("enum")) if "const" in rule else (rule.get("enum"),):
        if allowed is not None and not any(_same(value, one) for one in allowed):
            raise _problem(place, f"{_shown(value)} is not {' or '.join(map(_shown, allowed))}")
    for keyword, (kind, obeys, text) in _RULES.items():
        if keyword in rule and _TYPES[kind](value) and not obeys(value, rule[keyword]):
            why = f" ({rule['description']})" if keyword == "pattern" and "description" in rule else ""
            raise _problem(place, text.format(value=_shown(value), limit=_shown(rule[keyword])) + why)
    if isinstance(value, list) and "items" in rule:
        for index, item in enumerate(value):
            _check(item, rule["items"], schema, f"{place}[{index}]")
    if isinstance(value, dict):
        _check_object(value, rule, schema, place)


def _check_object(value: dict[str, Any], rule: dict[str, Any], schema: dict[str, Any], place: str) -> None:
    missing = [key for key in rule.get("required", ()) if key not in value]
    if missing:
        raise _problem(place, f"{missing[0]!r} is missing")
    known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
    for key, item in value.items():
        below = f"{place}.{key}" if place else key
        if key in known:
            _check(item, known[key], schema, below)
        elif others is False:
            raise _problem(place, f"{key!r} is not known here")
        elif isinstance(others, dict):
            _check(item, others, schema, below)


def _same(value: Any, other: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _problem(place: str, text: str) -> BundleError:
    return BundleError(f"{place}: {text}" if place else text)
