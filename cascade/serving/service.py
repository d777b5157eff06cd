"""Joins what the handlers share: the model, the batcher, the limits and the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from cascade.classifier import Cascade
from cascade.imaging.decoding import ImageSource
from cascade.inference.cpu import usable_cores
from cascade.prediction import Prediction
from cascade.serving.batching import Batcher
from cascade.serving.bodies import HeldBodies
from cascade.serving.metrics import ServiceMetrics
from cascade.serving.model import ServedModel
from cascade.serving.settings import ServeSettings

__all__ = ["Service"]

#: For a batch whose requests were all given up.
_LAST_SECONDS: Final = 2.0


class Service:
    """What one running service consists of.

    Args:
        model: what classifies; may still be loading.
        settings: limits.
        workers: threads that classify; None means one per core.
    """

    def __init__(self, model: ServedModel, settings: ServeSettings, workers: int | None = None) -> None:
        count = workers or usable_cores()
        self.model, self.settings = model, settings
        self.metrics = ServiceMetrics(model)
        self.bodies = HeldBodies(settings)
        self.batcher = Batcher(
            count,
            max_batch=settings.max_batch,
            max_waiting=settings.max_waiting,
            on_batch=self.metrics.batch_done,
        )
        self.metrics.watch(self.batcher, self.bodies, count, settings.max_waiting)

    def close(self) -> bool:
        """Stop the workers, and return whether no thread is inside a graph any more."""
        return self.batcher.close(_LAST_SECONDS) and self.model.join(_LAST_SECONDS)

    async def classify(
        self, request: Request, cascade: Cascade, photos: Sequence[ImageSource]
    ) -> list[Prediction]:
        """Queue the photos of a request and wait for the answers.

        Raises:
            QueueFullError: when too many photos wait.
            ClientDisconnect: when the client is gone; what was not begun is not classified then.
        """
        job = self.batcher.submit(cascade, photos)
        answers = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_disconnect(request))
        try:
            waiting: set[asyncio.Future[Any]] = {answers, gone}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                raise ClientDisconnect
            return answers.result()
        finally:
            job.abandoned = not answers.done()
            gone.cancel()


async def _disconnect(request: Request) -> None:
    """Wait until the client is gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
