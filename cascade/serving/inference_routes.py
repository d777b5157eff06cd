"""Serves the Open Inference Protocol, version 2, below /v2."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cascade import __version__
from cascade.runs.rows import make_row
from cascade.serving.inference_protocol import (
    INPUTS,
    OUTPUTS,
    ProtocolError,
    infer_response,
    parse_infer,
)
from cascade.serving.problems import ProblemError
from cascade.serving.service import Service

__all__ = ["MODEL", "inference_routes"]

MODEL: Final = "cascade"
_LENGTH: Final = "Inference-Header-Content-Length"
_JSON: Final = ("application/json", "application/octet-stream", "")


def inference_routes(service: Service) -> list[BaseRoute]:
    """Return every route of the protocol."""
    model, handlers = f"/v2/models/{MODEL}", _Handlers(service)
    routes: list[BaseRoute] = [
        Route("/v2", handlers.server),
        Route("/v2/health/live", handlers.live),
        Route("/v2/health/ready", handlers.ready),
    ]
    for path in (model, model + "/versions/{version}"):
        routes += [
            Route(path, handlers.metadata),
            Route(path + "/ready", handlers.ready),
            Route(path + "/infer", handlers.infer, methods=["POST"]),
        ]
    return routes


class _Handlers:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self, request: Request) -> Response:
        extensions = ["binary_tensor_data"]
        return JSONResponse({"name": "cascade", "version": __version__, "extensions": extensions})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        self._version(request)
        if not self._service.model.ready:
            why = "the bundle is still being loaded and verified"
            return JSONResponse({"ready": False, "error": why}, 503, {"Retry-After": "1"})
        body: dict[str, Any] = {"ready": True}
        if request.url.path != "/v2/health/ready":
            body["name"] = MODEL
        return JSONResponse(body)

    async def metadata(self, request: Request) -> Response:
        version = self._version(request)
        outputs = [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()]
        return JSONResponse(
            {
                "name": MODEL,
                "versions": [version],
                "platform": "onnxruntime_onnx",
                "inputs": list(INPUTS),
                "outputs": outputs,
            }
        )

    async def infer(self, request: Request) -> Response:
        service = self._service
        version, length = self._version(request), _header_length(request)
        cascade = service.model.cascade
        service.batcher.check_room()
        async with service.bodies.read(request) as body:
            limits = service.settings
            try:
                inference = parse_infer(
                    body, length, max_photos=limits.max_photos, max_pixels=limits.max_pixels
                )
            except ProtocolError as error:
                raise ProblemError(400, "protocol", str(error)) from None
            predictions = await service.classify(request, cascade, inference.photos)
        rows = [make_row(prediction, service.model.bundle_id) for prediction in predictions]
        content, header = infer_response(inference, rows, MODEL, version)
        if header is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={_LENGTH: str(header)}, media_type="application/octet-stream")

    def _version(self, request: Request) -> str:
        """Return the version that is served; the one of the address, if it has one, must be it."""
        wanted = request.path_params.get("version")
        if not self._service.model.ready:
            if wanted is None:
                return ""
            self._service.model.cascade  # noqa: B018 - raises NotReadyError
        version = self._service.model.bundle.version
        if wanted not in (None, version):
            raise ProblemError(404, "version", f"there is no version {wanted!r}; version {version} is served")
        return version


def _header_length(request: Request) -> int | None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoded = request.headers.get("content-encoding", "identity").lower() != "identity"
    if encoded or media not in _JSON:
        raise ProblemError(
            415, "media_type", "send JSON, or JSON and binary data, without compression, as the protocol says"
        )
    text = request.headers.get(_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ProblemError(400, "protocol", f"{_LENGTH} is {text!r}; it must be a whole number")
    return int(text)
