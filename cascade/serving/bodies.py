"""Reads request bodies within limits of size, time and memory, and takes the photos out of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cascade.serving.problems import ProblemError
from cascade.serving.settings import ServeSettings

__all__ = ["HeldBodies", "Upload", "photos_of"]


@dataclass(frozen=True, slots=True)
class Upload:
    """One photo of a request.

    Attributes:
        name: what the client calls it; None for a raw body.
        content: of the file.
    """

    name: str | None
    content: bytes


class HeldBodies:
    """Counts the bytes of all bodies in memory. Used from the event loop's thread only.

    Args:
        settings: limits of size and time.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self.bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read the whole body; it counts as held until the block ends.

        Raises:
            ProblemError: 408 when it takes too long, 429 when too much is held already. The size itself is
                limited by Starlette (413), also for chunked bodies.
        """
        chunks: list[bytes] = []
        held = 0
        try:
            try:
                async with asyncio.timeout(self._settings.body_seconds):
                    async for chunk in request.stream():
                        held += len(chunk)
                        self.bytes += len(chunk)
                        if self.bytes > self._settings.max_held_bytes:
                            raise ProblemError(
                                429,
                                "memory_full",
                                "the service holds as many request bodies as it may; try again in a second",
                                {"Retry-After": "1", "Connection": "close"},
                            )
                        chunks.append(chunk)
            except TimeoutError:
                raise ProblemError(
                    408,
                    "body_too_slow",
                    f"the body did not arrive within {self._settings.body_seconds:g} s; send smaller photos",
                    {"Connection": "close"},
                ) from None
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            yield body
        finally:
            self.bytes -= held


async def photos_of(request: Request, body: bytes, max_photos: int) -> list[Upload]:
    """Return the photos of a request to /v1/classify.

    Raises:
        ProblemError: 415 for another media type, 400 for a broken multipart body, 413 for too many photos.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "content_encoding", "photos are compressed already; send the body as it is")
    if media.startswith("image/") or media == "application/octet-stream":
        return [Upload(None, body)]
    if media != "multipart/form-data":
        raise ProblemError(
            415,
            "media_type",
            f"the body is {media or 'of no type'}; send one photo with Content-Type: image/jpeg (or whatever "
            "it is; application/octet-stream will do), or several as multipart/form-data",
        )
    return await _multipart(request, body, max_photos)


async def _multipart(request: Request, body: bytes, max_photos: int) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=max_photos, max_fields=max_photos)
    parser.spool_max_size = len(body) + 1  # it is in memory anyway: no temporary files
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise ProblemError(
                413, "too_many_photos", f"a request may hold {max_photos} photos; send several requests"
            ) from None
        raise ProblemError(400, "multipart", f"the multipart body cannot be read: {error.message}") from None
    except Exception as error:  # what else the parser throws at malformed input
        raise ProblemError(400, "multipart", f"the multipart body cannot be read: {error}") from None
    uploads = []
    for name, part in form.multi_items():
        if not isinstance(part, UploadFile):
            raise ProblemError(
                400, "multipart", f"the part {name!r} is no file; options go into the query, photos are files"
            )
        uploads.append(Upload(part.filename or None, await part.read()))
        await part.close()
    if not uploads:
        raise ProblemError(400, "no_photos", "the multipart body holds no photo; add one as a file part")
    return uploads
