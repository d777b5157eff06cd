"""Counts for Prometheus what the service does; every name begins with ``cascade_``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from cascade.prediction import Prediction
from cascade.serving.batching import Batcher
from cascade.serving.bodies import HeldBodies
from cascade.serving.model import ServedModel

__all__ = ["ServiceMetrics"]

_REQUEST_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_STAGE_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_BATCHES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class ServiceMetrics:
    """The registry of one service.

    Args:
        model: for what is loaded.
    """

    def __init__(self, model: ServedModel) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, and nobody reads them
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._model = model
        self._requests = Counter(
            "cascade_requests", "Requests by address and status.", ["path", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "cascade_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["path"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self._photos = Counter(
            "cascade_photos", "Photos by outcome: ok, or the error code.", ["outcome"], registry=registry
        )
        self._answers = Counter(
            "cascade_answers",
            "Answers by label, broader labels and unknown too.",
            ["label"],
            registry=registry,
        )
        self._reasons = Counter(
            "cascade_reasons",
            "Answers by reason: leaf, parent, doubtful (unknown), out_of_scope (unknown).",
            ["reason"],
            registry=registry,
        )
        self._deferred = Counter(
            "cascade_deferred", "Photos passed on to at least one expert.", registry=registry
        )
        self._asked = Counter(
            "cascade_expert_asked", "Photos passed on, by expert.", ["expert"], registry=registry
        )
        self._stage_seconds = Histogram(
            "cascade_stage_seconds",
            "Time per photo in each stage.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._batch_photos = Histogram(
            "cascade_batch_photos", "Photos that a worker took at once.", buckets=_BATCHES, registry=registry
        )
        self._busy_seconds = Counter(
            "cascade_worker_busy_seconds",
            "Seconds that workers classified; its rate divided by cascade_workers is how busy they are.",
            registry=registry,
        )
        self._abandoned = Counter(
            "cascade_abandoned_requests", "Requests whose client left before the answer.", registry=registry
        )
        self._in_flight = Gauge(
            "cascade_requests_in_flight", "Requests that are being read or answered.", registry=registry
        )
        for code in ("leaf", "parent", "doubtful", "out_of_scope"):
            self._reasons.labels(code)

    def watch(self, batcher: Batcher, bodies: HeldBodies, workers: int, max_waiting: int) -> None:
        """Add what is looked up when somebody reads the figures."""
        self._registry.register(_State(self._model, batcher, bodies, workers, max_waiting))

    def request_began(self) -> None:
        """Note a request."""
        self._in_flight.inc()

    def request_ended(self, path: str, status: int, seconds: float) -> None:
        """Note its end.

        Args:
            path: the route, not what the client sent: the number of time series stays small.
            status: HTTP status; 499 when the client left.
            seconds: that it took.
        """
        self._in_flight.dec()
        self._requests.labels(path, str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)
        if status == 499:
            self._abandoned.inc()

    def batch_done(self, predictions: Sequence[Prediction], seconds: float) -> None:
        """Note a batch."""
        self._batch_photos.observe(len(predictions))
        self._busy_seconds.inc(seconds)
        for prediction in predictions:
            self._photos.labels(prediction.error.code if prediction.error else "ok").inc()
            for stage, ms in prediction.ms.items():
                if stage != "total":
                    self._stage_seconds.labels(stage).observe(ms / 1e3)
            if prediction.label is not None and prediction.reason is not None:
                self._answers.labels(prediction.label).inc()
                self._reasons.labels(prediction.reason).inc()
            if prediction.experts:
                self._deferred.inc()
            for expert in prediction.experts:
                self._asked.labels(expert.name).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the figures and their media type, in the format that the client asks for."""
        encoder, media = choose_encoder(accept)
        return encoder(self._registry), media


class _State(Collector):
    """What is true now, read when it is asked for."""

    def __init__(
        self, model: ServedModel, batcher: Batcher, bodies: HeldBodies, workers: int, max_waiting: int
    ) -> None:
        self._model, self._batcher, self._bodies = model, batcher, bodies
        self._workers, self._max_waiting = workers, max_waiting

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges."""
        for name, text, value in (
            ("cascade_ready", "1 when photos can be classified.", float(self._model.ready)),
            ("cascade_queue_photos", "Photos that wait for a worker.", float(self._batcher.waiting)),
            ("cascade_queue_limit", "Photos that may wait; more are refused.", float(self._max_waiting)),
            (
                "cascade_queue_oldest_seconds",
                "For how long the oldest of them has waited.",
                self._batcher.oldest_seconds,
            ),
            ("cascade_held_body_bytes", "Bytes of request bodies in memory.", float(self._bodies.bytes)),
            ("cascade_workers", "Threads that classify.", float(self._workers)),
        ):
            yield GaugeMetricFamily(name, text, value)
        if self._model.ready:
            bundle = self._model.bundle
            info = GaugeMetricFamily(
                "cascade_bundle_info", "What is served.", labels=["name", "version", "id"]
            )
            info.add_metric([bundle.name, bundle.version, self._model.bundle_id], 1.0)
            yield info
