"""Guards every request: checks host, origin, token and announced size, counts it, and adds the
security headers."""

from __future__ import annotations

import hmac
import ipaddress
import time
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cascade.serving.metrics import ServiceMetrics
from cascade.serving.problems import problem_response
from cascade.serving.settings import ServeSettings

__all__ = ["SESSION_COOKIE", "Guard", "host_allowed", "same_token"]

SESSION_COOKIE: Final = "cascade_token"

#: The page fetches nothing from elsewhere, runs no inline code and may be framed by nobody.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
#: What works without the token: health for orchestrators, and the page, which then asks for it.
_OPEN_PATHS: Final = ("/", "/v1/session", "/v2/health/live", "/v2/health/ready")
_OPEN_FOLDER: Final = "/page/"
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


def host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a request with this header Host is answered.

    A page elsewhere can point a name of its own at this machine (DNS rebinding) and have a browser talk to
    us as if we were that name. Addresses and localhost cannot be taken over like that.
    """
    name = _name(host)
    if "*" in allowed or name == "localhost" or name in {entry.lower() for entry in allowed}:
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """Return a Host without its port, in lower case; an IPv6 address keeps its brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host


def same_token(given: str, token: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8"))


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what is guarded.
        settings: hosts, token and limits.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: ServiceMetrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        started = time.perf_counter()
        self._metrics.request_began()
        try:
            refusal = self._refusal(scope, Headers(scope=scope))
            await (refusal or self._app)(scope, receive, send_with_headers)
        finally:
            self._metrics.request_ended(_route(scope), status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, host = scope["path"], headers.get("host", "")
        if not host_allowed(host, self._settings.allowed_hosts):
            detail = f"this service does not answer to the name {_name(host)!r}; allow it with --allow-host"
            return problem_response(path, 421, "host_not_allowed", detail)
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in _SAFE_METHODS and not _same_host(origin, host):
            detail = "the request comes from a page of another site"
            return problem_response(path, 403, "foreign_origin", detail)
        if not self._may_enter(path, headers):
            detail = "this service needs its token: Authorization: Bearer TOKEN"
            return problem_response(path, 401, "token", detail, {"WWW-Authenticate": "Bearer"})
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._settings.max_body_bytes:
            limit = self._settings.max_body_bytes
            detail = (
                f"the body has {int(announced):,} bytes, more than the limit of {limit:,}; "
                "send fewer or smaller photos, or raise --max-body-mb"
            )
            return problem_response(path, 413, "body_too_large", detail, {"Connection": "close"})
        return None

    def _may_enter(self, path: str, headers: Headers) -> bool:
        token = self._settings.token
        if token is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return same_token(given.strip(), token)
        return same_token(cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE, ""), token)


def _same_host(origin: str, host: str) -> bool:
    return urlsplit(origin).netloc.lower() == host.strip().lower()


def _route(scope: Scope) -> str:
    """Return the address as the application declares it, so that the number of time series stays small."""
    route = scope.get("route")
    return str(getattr(route, "path", None) or "other")
