"""Puts the application together: routes, error bodies, guard, and the page."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from cascade.errors import UsageError
from cascade.serving.batching import QueueFullError, StoppingError
from cascade.serving.classify_route import classify_handler
from cascade.serving.guard import SESSION_COOKIE, Guard, same_token
from cascade.serving.inference_routes import inference_routes
from cascade.serving.model import NotReadyError
from cascade.serving.openapi import openapi
from cascade.serving.problems import on_fault, on_http_exception, problem_response
from cascade.serving.service import Service

__all__ = ["build_app"]

_PAGE: Final = Path(__file__).with_name("page")
_LOG: Final = logging.getLogger("cascade.serving")
_CLIENT_LEFT: Final = 499


def build_app(
    service: Service,
    *,
    more_routes: Sequence[BaseRoute] = (),
    on_loaded: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """Return the ASGI application.

    Args:
        service: what answers.
        more_routes: of the review page.
        on_loaded: called when loading the bundle has ended, well or not.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if not service.model.ready:
            service.model.start(on_loaded)
        yield

    app = Starlette(
        routes=[*_routes(service), *inference_routes(service), *more_routes],
        lifespan=lifespan,
        max_body_size=service.settings.max_body_bytes,
        exception_handlers={
            HTTPException: on_http_exception,
            QueueFullError: _on_queue_full,
            NotReadyError: _on_not_ready,
            StoppingError: _on_stopping,
            UsageError: _on_usage_error,
            ClientDisconnect: _on_client_left,
            Exception: on_fault,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, service.settings, service.metrics)


def _routes(service: Service) -> list[BaseRoute]:
    description = json.dumps(openapi(service.settings), ensure_ascii=False)

    async def describe(request: Request) -> Response:
        return Response(description, media_type="application/json")

    async def metrics(request: Request) -> Response:
        content, media = service.metrics.render(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media})

    async def page(request: Request) -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    return [
        Route("/", page),
        Mount("/page", StaticFiles(directory=_PAGE)),
        Route("/openapi.json", describe),
        Route("/metrics", metrics),
        Route("/v1/classify", classify_handler(service), methods=["POST"]),
        Route("/v1/session", _session_handler(service), methods=["POST"]),
    ]


def _session_handler(service: Service) -> Callable[[Request], object]:
    async def session(request: Request) -> Response:
        """Take the token once and keep it in a cookie that scripts cannot read, so that images load too."""
        async with service.bodies.read(request) as body:
            given = body.decode("utf-8", "replace").strip()
        token = service.settings.token
        if token is None:
            return JSONResponse({"token_needed": False})
        if not same_token(given, token):
            return problem_response("/v1/session", 401, "token", "this is not the token of this service")
        response = JSONResponse({"token_needed": True})
        response.set_cookie(SESSION_COOKIE, token, httponly=True, samesite="strict")
        return response

    return session


def _on_queue_full(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFullError)
    headers = {"Retry-After": str(error.retry_seconds)}
    return problem_response(request.url.path, 429, "queue_full", str(error), headers)


def _on_not_ready(request: Request, error: Exception) -> Response:
    return problem_response(request.url.path, 503, "not_ready", str(error), {"Retry-After": "1"})


def _on_stopping(request: Request, error: Exception) -> Response:
    detail = "the service is being stopped and takes no new work; ask another one"
    headers = {"Retry-After": "5", "Connection": "close"}
    return problem_response(request.url.path, 503, "stopping", detail, headers)


def _on_usage_error(request: Request, error: Exception) -> Response:
    return problem_response(request.url.path, 400, "option", str(error))


def _on_client_left(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)  # nobody reads it; it is counted
