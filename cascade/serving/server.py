"""Runs the application with uvicorn until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from starlette.routing import BaseRoute

from cascade.errors import UsageError
from cascade.serving.app import build_app
from cascade.serving.service import Service

__all__ = ["open_socket", "run_server"]

_LOG = logging.getLogger("cascade.serving")
_BACKLOG = 2048


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: when the address is taken or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); "
            "choose others with --host and --port"
        ) from error


def run_server(
    service: Service,
    listening: socket.socket,
    *,
    more_routes: Sequence[BaseRoute] = (),
    access_log: bool = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; accepted requests are then finished, within the time of the settings.

    Raises:
        Exception: what loading the bundle raised; the service stops then.
    """
    stop: list[Callable[[], None]] = []

    def loaded() -> None:
        if service.model.error is not None:
            stop[0]()

    config = uvicorn.Config(
        build_app(service, more_routes=more_routes, on_loaded=loaded),
        log_config=None,
        access_log=access_log,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=service.settings.graceful_seconds,
    )
    server = uvicorn.Server(config)
    stop.append(lambda: setattr(server, "should_exit", True))
    # uvicorn raises the signal once more when it is done; a stop that was asked for is no failure.
    before = {number: signal.signal(number, _nothing) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if service.model.error is not None:
        raise service.model.error
    if not service.close():
        # A thread is inside a graph still; leaving now the ordinary way would tear the graph from under it.
        _LOG.warning("stopped in the middle of a photo: it took longer than --graceful-seconds")
        sys.stderr.flush()
        os._exit(0)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Stand in for the default, which would end the process at once."""
