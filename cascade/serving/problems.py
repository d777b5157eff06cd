"""Turns everything that can go wrong with a request into an error body: RFC 9457, or that of the inference
protocol below /v2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["ProblemError", "on_fault", "on_http_exception", "problem", "problem_response"]


class ProblemError(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status code.
        code: a stable name of the problem for programs, e.g. ``"queue_full"``.
        detail: a sentence for people that says what to do next.
        headers: for the response.
        more: further members of the body.
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.more = more


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """Return the body of RFC 9457 for a problem."""
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code} | more


def problem_response(
    path: str, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return the response for a problem: ``{"error": ...}`` below /v2, RFC 9457 elsewhere."""
    if path == "/v2" or path.startswith("/v2/"):
        body: dict[str, Any] = {"error": detail}
        media = "application/json"
    else:
        body = problem(status, code, detail, **more)
        media = "application/problem+json"
    return Response(json.dumps(body, ensure_ascii=False), status, dict(headers or {}), media)


_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_DETAILS = {
    404: "there is nothing at this address; /openapi.json lists what is",
    405: "this address does not take this method; /openapi.json lists what it takes",
    413: "the body is larger than this service takes; send fewer or smaller photos",
}


def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer a request that a handler or the framework refused."""
    assert isinstance(error, HTTPException)
    path, status = request.url.path, error.status_code
    if isinstance(error, ProblemError):
        return problem_response(path, status, error.code, error.detail, error.headers, **error.more)
    code, detail = _CODES.get(status, "refused"), _DETAILS.get(status, error.detail)
    return problem_response(path, status, code, detail, error.headers)


def on_fault(request: Request, error: Exception) -> Response:
    """Answer a request that met a fault in the service; the log has the traceback."""
    detail = f"a fault in the service itself ({type(error).__name__}); its log says more"
    return problem_response(request.url.path, 500, "fault", detail)
