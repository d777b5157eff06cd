"""Describes the service as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any, Final

from cascade import __version__
from cascade.serving.openapi_schemas import schemas
from cascade.serving.settings import ServeSettings

__all__ = ["openapi"]

Json = dict[str, Any]

_EXAMPLE_ROW: Final[Json] = {
    "path": None,
    "status": "ok",
    "error": None,
    "warnings": [],
    "label": "kitchen",
    "parent": "indoor",
    "confidence": 0.934,
    "reason": "leaf",
    "top": [{"label": "kitchen", "probability": 0.934}, {"label": "dining_room", "probability": 0.031}],
    "schema": 1,
    "bundle": "default 0.2.0 sha256:0123456789ab",
}

_REFUSALS: Final = {
    "400": "An option, a multipart body or a tensor makes no sense.",
    "401": "The token is missing or wrong.",
    "403": "The request comes from a page of another site.",
    "408": "The body did not arrive in time.",
    "413": "The body, or the number of photos in it, is above the limit.",
    "415": "The media type is not taken.",
    "421": "The service does not answer to this host name.",
    "422": "The one photo of the body cannot be classified; `code` is the row's error code, `row` the row.",
    "429": "Too many photos wait; Retry-After says when to come back.",
    "503": "The bundle is still being loaded, or the service is being stopped.",
}


def openapi(settings: ServeSettings) -> Json:
    """Return the description; limits are those of the settings."""
    paths = {
        "/v1/classify": {"post": _classify(settings)},
        "/metrics": {"get": _simple("Figures for Prometheus.", {"text/plain": {}})},
        "/openapi.json": {"get": _simple("This description.", {"application/json": {}})},
        **_protocol(),
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "cascade",
            "version": __version__,
            "summary": "Says what a photo shows, with calibrated confidence.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas()},
    }
    if settings.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _refusals(*statuses: str, schema: str = "Problem") -> Json:
    media = "application/problem+json" if schema == "Problem" else "application/json"
    return {
        status: {"description": _REFUSALS[status], "content": {media: {"schema": _ref(schema)}}}
        for status in (*statuses, "401", "403", "421")
    }


def _simple(summary: str, content: Json) -> Json:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": content}, **_refusals()},
    }


def _query(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _classify(settings: ServeSettings) -> Json:
    photo = {"schema": {"type": "string", "format": "binary", "maxLength": settings.max_body_bytes}}
    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    form = {
        "type": "object",
        "minProperties": 1,
        "properties": {
            "photo": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "minItems": 1,
                "maxItems": settings.max_photos,
            }
        },
        "required": ["photo"],
        "additionalProperties": False,
    }
    return {
        "summary": "Classify one photo (raw body) or several (multipart).",
        "description": "A raw body gives one row, a multipart body a list of rows in the order of its parts. "
        "In a list, a photo that cannot be read is a row with status error; alone it is 422.",
        "parameters": [
            _query(
                "top_k", {"type": "integer", "minimum": 1, "maximum": 1000}, "Most probable labels listed."
            ),
            _query("max_error", share, "Accepted share of wrong ones among the answers."),
            _query("budget", {"type": "number", "minimum": 0, "maximum": 1}, "How much to spend on experts."),
            _query("label_set", share, "List labels that contain the right one with this probability."),
            _query("explain", {"type": "boolean"}, "Add what every stage said, and how long it took."),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/jpeg": photo,
                "application/octet-stream": photo,
                "multipart/form-data": {"schema": form},
            },
        },
        "responses": {
            "200": {
                "description": "The rows.",
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [_ref("Row"), {"type": "array", "items": _ref("Row")}]},
                        "examples": {
                            "one": {"summary": "A raw body", "value": _EXAMPLE_ROW},
                            "several": {
                                "summary": "A multipart body",
                                "value": [_EXAMPLE_ROW | {"path": "photo.jpg"}],
                            },
                        },
                    }
                },
            },
            **_refusals("400", "408", "413", "415", "422", "429", "503"),
        },
    }


def _protocol() -> Json:
    model, version = "/v2/models/cascade", "/v2/models/cascade/versions/{version}"
    parameter = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
    health = _answer("Health.", "Health", "503")
    paths: Json = {
        "/v2": {"get": _answer("What this server is.", "Server")},
        "/v2/health/live": {"get": _answer("Whether the process lives.", "Health")},
        "/v2/health/ready": {"get": _answer("Whether the bundle is loaded and verified.", "Health", "503")},
    }
    for path in (model, version):
        parameters: Json = {"parameters": [parameter]} if path is version else {}
        paths |= {
            path: {**parameters, "get": _answer("What the model takes and gives.", "Model", "503")},
            f"{path}/ready": {**parameters, "get": health},
            f"{path}/infer": {**parameters, "post": _infer()},
        }
        if path is version:
            for one in (path, f"{path}/ready", f"{path}/infer"):
                operation = paths[one].get("get") or paths[one]["post"]
                operation["responses"]["404"] = {
                    "description": "Another version is served.",
                    "content": {"application/json": {"schema": _ref("Error")}},
                }
    return paths


def _answer(summary: str, schema: str, *statuses: str) -> Json:
    content = {"application/json": {"schema": _ref(schema)}}
    responses: Json = {"200": {"description": "OK", "content": content}}
    responses |= _refusals(*statuses, schema="Error")
    if schema == "Health" and "503" in statuses:
        responses["503"] = {"description": "Not yet.", "content": content}
    return {"summary": summary, "responses": responses}


def _infer() -> Json:
    operation = _answer("Classify photos.", "InferResponse", "400", "408", "413", "415", "429", "503")
    example = {
        "id": "1",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["/9j/4AAQSkZJRgABAQ..."]}],
    }
    operation["requestBody"] = {
        "required": True,
        "description": "JSON with photos in base64, or binary data after it, as the protocol says.",
        "content": {"application/json": {"schema": _ref("InferRequest"), "example": example}},
    }
    operation["responses"]["200"]["content"]["application/octet-stream"] = {}
    return operation
