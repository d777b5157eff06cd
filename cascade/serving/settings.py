"""Holds every setting of the service, checked once where it is made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from cascade.errors import UsageError

__all__ = ["ServeSettings", "is_loopback"]

MEGABYTE: Final = 1_000_000
_SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the service listens and what it refuses.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        token: what clients must send as ``Authorization: Bearer``; None asks for nothing.
        allowed_hosts: names that may stand in the header Host, besides localhost and any IP address; ``*``
            allows every name.
        max_body_bytes: of one request.
        max_photos: in one request.
        max_pixels: of one photo.
        max_waiting: photos that wait for a worker; more are refused with 429.
        max_held_bytes: of all request bodies that are in memory at a time; more are refused with 429.
        max_batch: photos that a worker takes at once.
        body_seconds: within which a request's body must have arrived.
        graceful_seconds: within which accepted requests are finished after SIGTERM.

    Raises:
        UsageError: when a value makes no sense.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 32 * MEGABYTE
    max_photos: int = 64
    max_pixels: int = 100_000_000
    max_waiting: int = 256
    max_held_bytes: int = 512 * MEGABYTE
    max_batch: int = 8
    body_seconds: float = 30.0
    graceful_seconds: int = 30

    def __post_init__(self) -> None:
        for name in (
            *("max_body_bytes", "max_photos", "max_pixels", "max_waiting", "max_held_bytes"),
            *("max_batch", "body_seconds", "graceful_seconds"),
        ):
            value = getattr(self, name)
            if value <= 0:
                raise UsageError(f"{name} is {value}; it must be above 0")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}; it must be from 0 to 65535")
        if self.max_photos > self.max_waiting:
            raise UsageError(
                f"a request of max_photos={self.max_photos} can never wait: max_waiting is "
                f"{self.max_waiting}; raise it"
            )
        if self.max_body_bytes > self.max_held_bytes:
            raise UsageError(
                f"a body of max_body_bytes={self.max_body_bytes} can never be held: max_held_bytes is "
                f"{self.max_held_bytes}; raise it"
            )
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"the token must be at least {_SHORTEST_TOKEN} ASCII characters; make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
