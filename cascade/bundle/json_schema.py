"""Generates the published JSON Schema of bundle.json from its declaration.

    python -m cascade.bundle.json_schema

writes `cascade/bundle/bundle.schema.json` anew; a test compares it with the declaration.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from cascade.bundle.schema import FORMAT_VERSION, Manifest

__all__ = ["SCHEMA_FILE", "schema_text"]

SCHEMA_FILE: Final = Path(__file__).with_name("bundle.schema.json")


def schema_text() -> str:
    """Return the content of `bundle.schema.json`; its descriptions are the docstrings of the declaration."""
    schema = msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        text = inspect.cleandoc(definition.get("description", ""))
        definition["description"] = text.partition("\n\nRaises:")[0]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cascade-vision:bundle:{FORMAT_VERSION}",
        "title": f"bundle.json of cascade, format version {FORMAT_VERSION}",
    }
    # Releases of msgspec give the parts of a union in different orders.
    ordered = json.loads(json.dumps(head | schema), object_hook=_union_in_order)
    return json.dumps(ordered, indent=1) + "\n"


def _union_in_order(rule: dict[str, Any]) -> dict[str, Any]:
    return rule | {"anyOf": sorted(rule["anyOf"], key=json.dumps)} if "anyOf" in rule else rule


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
