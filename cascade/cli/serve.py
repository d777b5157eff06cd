"""Runs `cascade serve`: an HTTP service and a page to try it, on this machine unless told otherwise."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cascade.cli.options import bundle_option, command, together, variant_option
from cascade.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from cascade.serving.settings import ServeSettings

__all__ = ["listen_options", "make_settings", "needs_serve", "serve"]

TOKEN_VARIABLE: Final = "CASCADE_TOKEN"


def needs_serve(name: str) -> None:
    """Name the pip command where the extra `serve` is missing.

    Args:
        name: of the command, for the message.
    """
    with needs_extra(name, "serve"):
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401


#: Where to listen, and who may talk to us.
listen_options: Final = together(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
    ),
    click.option(
        "--allow-host",
        metavar="NAME",
        multiple=True,
        help="A name by which clients may call this service, besides localhost and addresses; may be"
        " given several times. * allows every name.",
    ),
    click.option(
        "--token-file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="File with the token that clients must send.  [default: $CASCADE_TOKEN, else none]",
    ),
)


def read_token(path: Path | None) -> str | None:
    """Return the token of a file or the environment; the command line would show it to every user."""
    if path is not None:
        token = path.read_text(encoding="utf-8").strip()
        if not token:
            raise UsageError(f"{path}: holds no token")
        return token
    return os.environ.get(TOKEN_VARIABLE) or None


def make_settings(
    host: str, port: int, allow_host: tuple[str, ...], token: Path | None, **limits: Any
) -> ServeSettings:
    """Return the settings of the service, and warn about an open door."""
    from cascade.serving.settings import ServeSettings, is_loopback

    settings = ServeSettings(
        host=host, port=port, allowed_hosts=allow_host, token=read_token(token), **limits
    )
    if settings.token is None and not is_loopback(host):
        click.echo(
            f"cascade: everybody who reaches {host} may use this service; --token-file asks for a token",
            err=True,
        )
    return settings


@command
@bundle_option
@variant_option
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Threads.  [default: one per core]")
@listen_options
@click.option("--max-body-mb", type=click.FloatRange(min=0, min_open=True), default=32.0, show_default=True,
              help="Megabytes of one request's body.")  # fmt: skip
@click.option("--max-photos", type=click.IntRange(min=1), default=64, show_default=True,
              help="Photos in one request.")  # fmt: skip
@click.option("--max-pixels", type=click.IntRange(min=1), default=100_000_000, show_default=True,
              help="Pixels of one photo.")  # fmt: skip
@click.option("--queue", type=click.IntRange(min=1), default=256, show_default=True,
              help="Photos that may wait; more are refused with 429.")  # fmt: skip
@click.option("--memory-mb", type=click.FloatRange(min=0, min_open=True), default=512.0, show_default=True,
              help="Megabytes of all request bodies that are held at a time; more are refused.")  # fmt: skip
@click.option("--body-seconds", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
              help="Within which a request's body must have arrived.")  # fmt: skip
@click.option("--graceful-seconds", type=click.IntRange(min=1), default=30, show_default=True,
              help="Within which accepted requests are finished after SIGTERM.")  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Do not compare with the bundle's golden outputs first.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request on standard error.")
def serve(**given: Any) -> int:
    """Serve photos over HTTP, and a page to try it in a browser.

    POST a photo to /v1/classify, or use the Open Inference Protocol below /v2. /metrics is for Prometheus,
    /openapi.json describes everything. SIGTERM and Ctrl-C finish what was accepted, then stop.
    """
    needs_serve("cascade serve")
    from cascade.classifier import Cascade
    from cascade.serving.model import ServedModel
    from cascade.serving.server import open_socket, run_server
    from cascade.serving.service import Service

    log_to_stderr(given["verbose"])
    settings = make_settings(
        given["host"],
        given["port"],
        given["allow_host"],
        given["token_file"],
        max_body_bytes=int(given["max_body_mb"] * 1e6),
        max_photos=given["max_photos"],
        max_pixels=given["max_pixels"],
        max_waiting=given["queue"],
        max_held_bytes=int(given["memory_mb"] * 1e6),
        body_seconds=given["body_seconds"],
        graceful_seconds=given["graceful_seconds"],
    )
    workers = given["workers"]
    model = ServedModel(
        lambda: Cascade(
            given["bundle"], variant=given["variant"], max_pixels=given["max_pixels"], workers=workers
        ),
        verify=not given["no_verify"],
    )
    listening = open_socket(settings.host, settings.port)
    click.echo(f"cascade: serving on {address(listening)}; Ctrl-C stops", err=True)
    run_server(Service(model, settings, workers), listening, access_log=given["verbose"])
    click.echo("cascade: stopped", err=True)
    return 0


def address(listening: Any) -> str:
    """Return the address that a browser on this machine can open."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def log_to_stderr(verbose: bool) -> None:
    """Log with times, for whoever looks for what happened when."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not verbose:
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
