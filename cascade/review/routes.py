"""Serves a run to the review page, below /v1/review."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from cascade.errors import ImageError
from cascade.inference.cpu import usable_cores
from cascade.review.corrections import ConflictError
from cascade.review.export import csv_lines, export_folders
from cascade.review.ordering import ORDERS
from cascade.review.run_index import ReviewFilter
from cascade.review.session import ReviewSession, state_of
from cascade.serving.bodies import HeldBodies
from cascade.serving.problems import ProblemError

__all__ = ["review_routes"]

_MOST_ROWS: Final = 500
_MOST_CHANGES: Final = 5_000
_LONGEST_NAME: Final = 80
_TEXTS: Final = ("label", "status", "reason", "route", "state", "text", "order")
_HISTORY: Final = 50


def review_routes(session: ReviewSession, bodies: HeldBodies) -> list[BaseRoute]:
    """Return the routes of one run."""
    handlers = _Handlers(session, bodies)
    root = "/v1/review"
    return [
        Route(root, handlers.about),
        Route(f"{root}/progress", handlers.progress),
        Route(f"{root}/photos", handlers.select),
        Route(f"{root}/rows", handlers.rows),
        Route(f"{root}/photos/{{number:int}}", handlers.photo),
        Route(f"{root}/photos/{{number:int}}/thumbnail", partial(handlers.picture, large=False)),
        Route(f"{root}/photos/{{number:int}}/image", partial(handlers.picture, large=True)),
        Route(f"{root}/changes", handlers.change, methods=["POST"]),
        Route(f"{root}/accept", handlers.accept, methods=["POST"]),
        Route(f"{root}/undo", handlers.undo, methods=["POST"]),
        Route(f"{root}/history", handlers.history),
        Route(f"{root}/since/{{last:int}}", handlers.since),
        Route(f"{root}/corrections.csv", handlers.csv),
        Route(f"{root}/folders", handlers.folders, methods=["POST"]),
    ]


def _filter(given: Mapping[str, Any]) -> ReviewFilter:
    values: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name)}
    unknown = set(given) - {*_TEXTS, "low", "high"}
    if unknown:
        raise ProblemError(400, "filter", f"there is no filter {sorted(unknown)[0]!r}")
    try:
        values |= {name: float(given[name]) for name in ("low", "high") if given.get(name) not in (None, "")}
    except (TypeError, ValueError):
        raise ProblemError(400, "filter", "low and high must be numbers") from None
    if not all(isinstance(values.get(name, ""), str) for name in _TEXTS):
        raise ProblemError(400, "filter", "every filter is a text, but low and high")
    if values.get("order", "doubt") not in ORDERS:
        raise ProblemError(400, "filter", f"there is no order {values['order']!r}; {', '.join(ORDERS)}")
    return ReviewFilter(**values)


class _Handlers:
    def __init__(self, session: ReviewSession, bodies: HeldBodies) -> None:
        self._session, self._bodies = session, bodies
        # Pictures are made by as many threads as there are cores; everything else by one at a time.
        self._picture_limit = anyio.CapacityLimiter(usable_cores())
        self._work_limit = anyio.CapacityLimiter(1)

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work, limiter=self._work_limit)

    async def about(self, request: Request) -> Response:
        return JSONResponse(await self._run(self._session.about))

    async def progress(self, request: Request) -> Response:
        return JSONResponse(await self._run(self._session.progress))

    async def select(self, request: Request) -> Response:
        wanted = _filter(request.query_params)
        numbers = await self._run(lambda: self._session.index.select(wanted).tolist())
        return JSONResponse({"ids": numbers})

    async def rows(self, request: Request) -> Response:
        text = request.query_params.get("ids", "")
        try:
            numbers = [int(part) for part in text.split(",") if part]
        except ValueError:
            raise ProblemError(400, "ids", "ids must be whole numbers, parted by commas") from None
        if len(numbers) > _MOST_ROWS:
            raise ProblemError(400, "ids", f"at most {_MOST_ROWS} ids at a time")
        for number in numbers:
            self._check(number)
        return JSONResponse({"rows": await self._run(lambda: self._session.summaries(numbers))})

    def _check(self, number: Any) -> int:
        if type(number) is not int or not 0 <= number < len(self._session.index):
            raise ProblemError(404, "no_photo", f"the run has no photo {number!r}")
        return number

    async def photo(self, request: Request) -> Response:
        number = self._check(request.path_params["number"])

        def look() -> dict[str, Any]:
            return {"row": self._session.index.row(number), **self._session.summaries([number])[0]}

        return JSONResponse(await self._run(look))

    async def picture(self, request: Request, *, large: bool) -> Response:
        number = self._check(request.path_params["number"])
        make = partial(self._session.picture, number, large=large)
        try:
            data = await anyio.to_thread.run_sync(make, limiter=self._picture_limit)
        except ImageError as error:
            raise ProblemError(404, error.code, f"the photo cannot be shown: {error.message}") from None
        return Response(data, headers={"Cache-Control": "private, max-age=3600"}, media_type="image/webp")

    async def _json(self, request: Request, *allowed: str) -> dict[str, Any]:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise ProblemError(415, "media_type", "send JSON")
        async with self._bodies.read(request) as body:
            try:
                given = json.loads(body)
            except (ValueError, RecursionError):
                raise ProblemError(400, "json", "the body is no JSON") from None
        if not isinstance(given, dict) or set(given) - set(allowed):
            raise ProblemError(400, "json", f"the body must be an object of {', '.join(allowed)}")
        return given

    async def change(self, request: Request) -> Response:
        given = await self._json(request, "reviewer", "changes")
        reviewer, wanted = _reviewer(given), given.get("changes")
        if not isinstance(wanted, list) or not 0 < len(wanted) <= _MOST_CHANGES:
            raise ProblemError(400, "changes", f"changes must be a list of 1 to {_MOST_CHANGES}")
        changes = [self._change(one) for one in wanted]
        if len({change.path for change in changes}) < len(changes):
            raise ProblemError(400, "changes", "a photo is named twice")
        try:
            numbers = await self._run(lambda: self._session.say(changes, reviewer))
        except ConflictError as error:
            self._session.catch_up()
            detail = f"somebody was faster: {error}; look again, then say it once more"
            states = [state_of(entry) | {"path": entry.path} for entry in error.entries]
            raise ProblemError(409, "conflict", detail, states=states) from None
        return await self._changed(numbers)

    def _change(self, one: Any) -> Any:
        if not isinstance(one, dict) or set(one) - {"id", "label", "seen"}:
            raise ProblemError(400, "changes", "a change is an object of id, label and seen")
        number, label, seen = self._check(one.get("id")), one.get("label"), one.get("seen", 0)
        if not (label is None or isinstance(label, str)) or type(seen) is not int:
            raise ProblemError(400, "changes", "label must be a text or null, seen a whole number")
        try:
            return self._session.change(number, label, seen)
        except ValueError as error:
            raise ProblemError(400, "label", str(error)) from None

    async def accept(self, request: Request) -> Response:
        given = await self._json(request, "reviewer", "filter", "confidence")
        reviewer, confidence = _reviewer(given), given.get("confidence")
        if not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
            raise ProblemError(400, "confidence", "confidence must be a number from 0 to 1")
        if not isinstance(given.get("filter", {}), dict):
            raise ProblemError(400, "filter", "filter must be an object")
        wanted = _filter(given.get("filter", {}))
        return await self._changed(
            await self._run(lambda: self._session.accept_above(wanted, confidence, reviewer)), rows=False
        )

    async def undo(self, request: Request) -> Response:
        given = await self._json(request, "reviewer", "batch")
        reviewer, batch = _reviewer(given), given.get("batch")
        if batch is not None and type(batch) is not int:
            raise ProblemError(400, "batch", "batch must be a whole number")
        return await self._changed(await self._run(lambda: self._session.undo(reviewer, batch)))

    async def _changed(self, numbers: Sequence[int], *, rows: bool = True) -> Response:
        def look() -> dict[str, Any]:
            shown = self._session.summaries(numbers[:_MOST_ROWS]) if rows else []
            return {"changed": len(numbers), "rows": shown, "progress": self._session.progress()}

        return JSONResponse(await self._run(look))

    async def history(self, request: Request) -> Response:
        def look() -> list[dict[str, Any]]:
            self._session.catch_up()
            batches = self._session.log.history(_HISTORY)
            return [
                state_of(batch[0])
                | {"photos": len(batch), "path": batch[0].path, "previous": batch[0].previous}
                for batch in batches
            ]

        return JSONResponse({"batches": await self._run(look)})

    async def since(self, request: Request) -> Response:
        last = request.path_params["last"]
        numbers = await self._run(lambda: self._session.changed_since(last))
        return await self._changed(numbers)

    async def csv(self, request: Request) -> Response:
        self._session.catch_up()
        name = self._session.run.stem.encode("ascii", "replace").decode().replace('"', "_").replace("?", "_")
        headers = {"Content-Disposition": f'attachment; filename="{name}.corrections.csv"'}
        lines = (line.encode("utf-8", "surrogateescape") for line in csv_lines(self._session.index))
        return StreamingResponse(lines, headers=headers, media_type="text/csv")

    async def folders(self, request: Request) -> Response:
        """Write the folders beside the run; where, the client cannot choose."""
        await self._json(request)
        run = self._session.run

        def write() -> dict[str, Any]:
            self._session.catch_up()
            number, target = 1, run.with_name(f"{run.name}.reviewed")
            while target.exists():
                number += 1
                target = run.with_name(f"{run.name}.reviewed-{number}")
            return {"folder": str(target), "counts": dict(export_folders(self._session.index, target))}

        return JSONResponse(await self._run(write))


def _reviewer(given: Mapping[str, Any]) -> str:
    name = given.get("reviewer")
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ProblemError(400, "reviewer", f"reviewer must be a name of 1 to {_LONGEST_NAME} letters")
    return name.strip()
