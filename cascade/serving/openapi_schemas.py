"""Describes the bodies that the service takes and gives, for its OpenAPI description."""

from __future__ import annotations

from typing import Any, Final

from cascade.errors import IMAGE_ERROR_CODES
from cascade.policy import REASONS
from cascade.serving.inference_protocol import OUTPUTS

__all__ = ["schemas"]

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": ["string", "null"]}
_NUMBER: Final[Json] = {"type": ["number", "null"]}


def schemas() -> Json:
    """Return name -> schema."""
    text, number = _TEXT, _NUMBER
    scored = {
        "type": "object",
        "properties": {"label": {"type": "string"}, "probability": {"type": "number"}},
        "required": ["label", "probability"],
    }
    opinion = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "label": {"type": "string"},
            "confidence": {"type": "number"},
        },
        "required": ["label", "confidence"],
    }
    row = {
        "path": text | {"description": "The name of the part; null for a raw body."},
        "status": {"enum": ["ok", "error"]},
        "error": {
            "type": ["object", "null"],
            "properties": {"code": {"enum": list(IMAGE_ERROR_CODES)}, "message": {"type": "string"}},
        },
        "warnings": {"type": "array", "items": {"type": "string"}},
        "label": text | {"description": "A label, a broader label, or unknown."},
        "parent": text,
        "confidence": number,
        "reason": {"enum": [*REASONS, None]},
        "top": {"type": "array", "items": scored},
        "label_set": {"type": "array", "items": {"type": "string"}},
        "general": {"oneOf": [opinion, {"type": "null"}]},
        "experts": {"type": "array", "items": opinion},
        "scope_score": number,
        "ms": {"type": "object", "additionalProperties": {"type": "number"}},
        "schema": {"type": "integer"},
        "bundle": {"type": "string"},
    }
    required = ["path", "status", "error", "warnings", "label", "confidence", "reason", "top", "bundle"]
    return {
        "Row": {"type": "object", "properties": row, "required": required},
        "Problem": _problem(),
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
        "Health": {
            "type": "object",
            "properties": {"live": {"type": "boolean"}, "ready": {"type": "boolean"}},
        },
        "Server": _object("name", "version", extensions={"type": "array", "items": {"type": "string"}}),
        "Model": _object(
            "name",
            "platform",
            versions={"type": "array", "items": {"type": "string"}},
            inputs={"type": "array"},
            outputs={"type": "array"},
        ),
        "InferRequest": _infer_request(),
        "InferResponse": _object(
            "model_name", "model_version", outputs={"type": "array", "items": {"type": "object"}}
        ),
    }


def _problem() -> Json:
    return {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong and what to do next."},
            "code": {"type": "string", "description": "A stable name for programs."},
        },
        "required": ["title", "status", "detail", "code"],
        "examples": [
            {
                "type": "about:blank",
                "title": "Too Many Requests",
                "status": 429,
                "detail": "256 photos are waiting already; try again in 3 s",
                "code": "queue_full",
            }
        ],
    }


def _object(*texts: str, **more: Json) -> Json:
    properties = {name: {"type": "string"} for name in texts} | more
    return {"type": "object", "properties": properties, "required": list(properties)}


def _infer_request() -> Json:
    tensor = {
        "type": "object",
        "properties": {
            "name": {"const": "image"},
            "datatype": {"enum": ["BYTES", "UINT8"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            "data": {"type": "array", "description": "BYTES: base64 of each file. UINT8: values 0 to 255."},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape"],
    }
    output = {
        "type": "object",
        "properties": {"name": {"enum": list(OUTPUTS)}, "parameters": {"type": "object"}},
        "required": ["name"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": output},
        },
        "required": ["inputs"],
    }
