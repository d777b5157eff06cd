"""Makes the row of each photo from its `Prediction`, as one JSON object and in a flat form for columns.

Every row says which version of this layout it follows (`schema`) and which bundle made it (`bundle`: name,
version, the first 12 digits of the SHA-256 of bundle.json, and the variant that ran if not the exact one). A
first line with these facts would break every tool that expects a table or one object a line, and be lost by
`sort`, `head` and `cat`.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from cascade.bundle.manifest import MANIFEST, Bundle
from cascade.bundle.stage import EXACT
from cascade.errors import UsageError
from cascade.imaging.files import readable
from cascade.prediction import Prediction

__all__ = [
    "EXPLAIN_FIELDS",
    "FIELDS",
    "ROW_SCHEMA_VERSION",
    "Row",
    "bundle_hash",
    "bundle_id",
    "choose_fields",
    "columns_of",
    "flatten",
    "make_row",
    "path_of",
    "rename_row",
]

#: Rises when a key changes its meaning or goes away; a new key does not raise it.
ROW_SCHEMA_VERSION: Final = 1

#: Keys of a row, in the order in which every format gives them.
FIELDS: Final = (
    "path",
    "status",
    "error",
    "warnings",
    "label",
    "parent",
    "confidence",
    "reason",
    "top",
    "label_set",
    "general",
    "experts",
    "scope_score",
    "ms",
    "schema",
    "bundle",
)
#: Left out of columns (csv, parquet) unless asked for with ``--explain`` or ``--fields``.
EXPLAIN_FIELDS: Final = ("label_set", "general", "experts", "scope_score", "ms")

#: Keys that become several columns, or one of another name.
_COLUMNS: Final = {
    "error": ("error_code", "error_message"),
    "general": ("general_label", "general_confidence"),
    "ms": ("ms_total",),
}

Row = dict[str, Any]


def bundle_hash(bundle: Bundle) -> str:
    """SHA-256 of bundle.json, in hex. It names the hash of every graph, so it stands for the whole bundle."""
    return hashlib.sha256((bundle.folder / MANIFEST).read_bytes()).hexdigest()


def bundle_id(bundle: Bundle, variant: str = EXACT) -> str:
    """Return what a row's `bundle` says, e.g. ``default 0.1.0 sha256:0123456789ab int8``.

    The variant that ran is named if it is not the exact one.
    """
    name = f"{bundle.name} {bundle.version} sha256:{bundle_hash(bundle)[:12]}"
    return name if variant == EXACT else f"{name} {variant}"


def make_row(prediction: Prediction, bundle: str) -> Row:
    r"""Return the row of one photo.

    Args:
        prediction: its `path` may hold bytes that are not UTF-8, as `os.fsdecode` keeps them. In the row
            they are ``\xNN``, and `path_base64` holds the exact name.
        bundle: see `bundle_id`.
    """
    values = prediction.to_dict()
    row = {key: values.get(key) for key in FIELDS} | {"schema": ROW_SCHEMA_VERSION, "bundle": bundle}
    return row | path_keys(prediction.path)


def rename_row(row: Row, path: str) -> Row:
    """Return the row of a photo with the same content: it cost no time."""
    return {k: v for k, v in row.items() if k != "path_base64"} | {"ms": {}} | path_keys(path)


def path_keys(path: str | None) -> Row:
    """Return `path`, and `path_base64` if the name is not UTF-8; see `make_row`."""
    if path is None:
        return {"path": None}
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        exact = base64.b64encode(os.fsencode(path)).decode("ascii")
        return {"path": readable(path), "path_base64": exact}
    return {"path": path}


def path_of(row: Row) -> str:
    """Return the path of a row as the operating system takes it."""
    if "path_base64" in row:
        return os.fsdecode(base64.b64decode(row["path_base64"]))
    return str(row["path"])


def choose_fields(
    names: str | None, *, explain: bool, columns: bool, also: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the keys to write, in the order of `FIELDS`, or as the user listed them.

    Args:
        names: comma-separated keys, or None for the default of the format.
        explain: whether what the stages said belongs to the default.
        columns: whether the format has columns; JSON rows are complete unless ``names`` says otherwise.
        also: keys of `EXPLAIN_FIELDS` that belong to the default here.

    Raises:
        UsageError: for an unknown key, and when no key is left.
    """
    if names is None:
        left_out = set(EXPLAIN_FIELDS) - set(also) if columns and not explain else set()
        return tuple(field for field in FIELDS if field not in left_out)
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in FIELDS]
    if unknown or not chosen:
        what = f"no field is called {unknown[0]!r}" if unknown else "--fields names no field"
        raise UsageError(f"{what}; choose from {','.join(FIELDS)}")
    return chosen


def columns_of(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the columns that these keys become."""
    return tuple(column for name in fields for column in _COLUMNS.get(name, (name,)))


def flatten(row: Row, fields: Sequence[str]) -> Row:
    """Return a row with one plain value for each column of `columns_of`; lists stay lists.

    Values of `top` and `experts` are lists of objects, of `warnings` and `label_set` lists of strings;
    everything else is a number, a string or None.
    """
    flat: Row = {}
    for name in fields:
        value = row.get(name)
        if name == "error":
            flat["error_code"] = value and value["code"]
            flat["error_message"] = value and value["message"]
        elif name == "general":
            flat["general_label"] = value and value["label"]
            flat["general_confidence"] = value and value["confidence"]
        elif name == "ms":
            flat["ms_total"] = (value or {}).get("total")
        else:
            flat[name] = value
    return flat
