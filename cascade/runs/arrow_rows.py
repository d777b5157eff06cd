"""Turns rows into Arrow tables; every Parquet file and every cluster engine gets this one schema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from cascade.runs.rows import ROW_SCHEMA_VERSION, Row, columns_of, flatten

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BUNDLE_KEY", "BUNDLE_SHA256_KEY", "SCHEMA_KEY", "arrow_schema", "arrow_table"]

#: Keys of the schema's metadata: the version of the layout, and which bundle made the rows.
SCHEMA_KEY: Final = "cascade.schema"
BUNDLE_KEY: Final = "cascade.bundle"
BUNDLE_SHA256_KEY: Final = "cascade.bundle_sha256"


def arrow_schema(fields: Sequence[str], bundle: str | None = None, sha256: str | None = None) -> pa.Schema:
    """Return the columns of rows with their types.

    Columns are those of CSV; `top` and `experts` are lists of structures, `warnings` and `label_set` lists of
    strings.

    Args:
        fields: see `cascade.runs.rows.choose_fields`.
        bundle: see `cascade.runs.rows.bundle_id`; None leaves the bundle out of the metadata.
        sha256: of the bundle, in full.

    Raises:
        ModuleNotFoundError: when pyarrow is not installed.
    """
    import pyarrow as pa

    def list_of(kind: Any) -> Any:
        return pa.list_(
            pa.field("element", kind)
        )  # the name that Parquet gives it, so reading gives this schema

    scored = [("label", pa.string()), ("probability", pa.float64())]
    asked = [("name", pa.string()), ("label", pa.string()), ("confidence", pa.float64())]
    types: dict[str, Any] = {
        "warnings": list_of(pa.string()),
        "confidence": pa.float64(),
        "top": list_of(pa.struct(scored)),
        "label_set": list_of(pa.string()),
        "general_confidence": pa.float64(),
        "experts": list_of(pa.struct(asked)),
        "scope_score": pa.float64(),
        "ms_total": pa.float64(),
        "schema": pa.int64(),
    }
    metadata = {SCHEMA_KEY: str(ROW_SCHEMA_VERSION), BUNDLE_KEY: bundle, BUNDLE_SHA256_KEY: sha256}
    return pa.schema(
        [(column, types.get(column, pa.string())) for column in columns_of(fields)],
        metadata={key: value for key, value in metadata.items() if value is not None},
    )


def arrow_table(rows: Iterable[Row], fields: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Return rows as a table with the schema that `arrow_schema` gave for the same fields."""
    import pyarrow as pa

    return pa.Table.from_pylist([flatten(row, fields) for row in rows], schema=schema)
