"""Answers POST /v1/classify: photos in, the JSON form of their predictions out, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from cascade.prediction import Prediction
from cascade.runs.rows import EXPLAIN_FIELDS, Row, make_row
from cascade.serving.bodies import photos_of
from cascade.serving.model import ClassifyOptions
from cascade.serving.problems import ProblemError
from cascade.serving.service import Service

__all__ = ["classify_handler", "parse_options"]


def _share(text: str, *, closed: bool) -> float:
    value = float(text)
    if not (0.0 <= value <= 1.0 if closed else 0.0 < value < 1.0):
        raise ValueError
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1000):
        raise ValueError
    return int(text)


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


#: Option -> how its text is read, and what it must be.
_READERS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "top_k": (_count, "a whole number from 1 to 1000"),
    "max_error": (lambda text: _share(text, closed=False), "a share between 0 and 1, e.g. 0.05"),
    "budget": (lambda text: _share(text, closed=True), "a share from 0 to 1"),
    "label_set": (lambda text: _share(text, closed=False), "a share between 0 and 1, e.g. 0.95"),
    "explain": (_flag, "true or false"),
}


def parse_options(query: QueryParams) -> tuple[ClassifyOptions, bool]:
    """Return the options of a query, and whether the answer is explained.

    Raises:
        ProblemError: 400 for an option that does not exist, is given twice or has no sense.
    """
    given: dict[str, Any] = {}
    for name, text in query.multi_items():
        if name not in _READERS:
            known = ", ".join(_READERS)
            raise ProblemError(400, "unknown_option", f"there is no option {name!r}; there are {known}")
        if name in given:
            raise ProblemError(400, "option", f"{name} is given twice; give it once")
        read, what = _READERS[name]
        try:
            given[name] = read(text)
        except (ValueError, KeyError):
            raise ProblemError(400, "option", f"{name} is {text!r}; it must be {what}") from None
    explain = given.pop("explain", False)
    return ClassifyOptions(**given), explain


def classify_handler(service: Service) -> Callable[[Request], Any]:
    """Return the handler."""

    async def classify(request: Request) -> Response:
        options, explain = parse_options(request.query_params)
        cascade = service.model.with_options(options)
        service.batcher.check_room()  # before the body is read
        async with service.bodies.read(request) as body:
            uploads = await photos_of(request, body, service.settings.max_photos)
            predictions = await service.classify(request, cascade, [upload.content for upload in uploads])
        bundle = service.model.bundle_id
        rows = [
            _row(replace(prediction, path=upload.name), bundle, options, explain=explain)
            for upload, prediction in zip(uploads, predictions, strict=True)
        ]
        if uploads[0].name is None and len(rows) == 1:
            return _one(rows[0])
        return _json(rows)

    return classify


def _row(prediction: Prediction, bundle: str, options: ClassifyOptions, *, explain: bool) -> Row:
    row = make_row(prediction, bundle)
    if explain:
        return row
    left_out = set(EXPLAIN_FIELDS) - ({"label_set"} if options.label_set is not None else set())
    return {key: value for key, value in row.items() if key not in left_out}


def _one(row: Row) -> Response:
    """Answer a body that is one photo: a bad photo is the client's error."""
    if row["error"] is not None:
        code, message = row["error"]["code"], row["error"]["message"]
        raise ProblemError(422, code, f"the photo cannot be classified: {message}", row=row)
    return _json(row)


def _json(content: Any) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "backslashreplace"), media_type="application/json")
