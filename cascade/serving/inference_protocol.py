"""Reads and writes the bodies of the Open Inference Protocol, version 2, as pure functions.

Tensors come as JSON, or as bytes after the JSON (the binary data extension, which `tritonclient` uses);
https://github.com/kserve/open-inference-protocol and Triton's `extension_binary_data.md` describe both.
In JSON, a photo's file is text: base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cascade.imaging.decoding import ImageSource
from cascade.runs.rows import Row

__all__ = ["INPUTS", "OUTPUTS", "InferRequest", "ProtocolError", "infer_response", "parse_infer"]

INPUT: Final = "image"
#: What the model takes: either of them.
INPUTS: Final = (
    {"name": INPUT, "datatype": "BYTES", "shape": [-1]},
    {"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
)
#: Name -> datatype. Strings are empty and numbers 0 where a photo has no answer; `status` then has the code.
OUTPUTS: Final[Mapping[str, str]] = {
    "label": "BYTES",
    "confidence": "FP32",
    "parent": "BYTES",
    "reason": "BYTES",
    "status": "BYTES",
    "answer": "BYTES",
}


class ProtocolError(Exception):
    """A request that the protocol does not allow, or that this model does not take."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks.

    Attributes:
        id: given back in the answer; None if there was none.
        photos: encoded files or uint8 arrays (H, W, 3).
        outputs: (name, whether as bytes), in the order of the answer.
    """

    id: str | None
    photos: tuple[ImageSource, ...]
    outputs: tuple[tuple[str, bool], ...]


def parse_infer(body: bytes, header_length: int | None, *, max_photos: int, max_pixels: int) -> InferRequest:
    """Read a request.

    Args:
        body: JSON, followed by the bytes of binary tensors.
        header_length: bytes of the JSON; None when there is nothing else.
        max_photos: in the tensor.
        max_pixels: of one photo of a UINT8 tensor.

    Raises:
        ProtocolError: says what is wrong.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise ProtocolError(
            f"Inference-Header-Content-Length is {header_length}; the body has {len(body)} bytes"
        )
    end = len(body) if header_length is None else header_length
    try:
        request = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the request is no JSON: {error}") from None
    if not isinstance(request, dict):
        raise ProtocolError("the request must be a JSON object")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ProtocolError("id must be a string")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ProtocolError(f"inputs must be a list of one tensor, {INPUT!r}")
    photos = _photos(inputs[0], body[end:], max_photos, max_pixels)
    return InferRequest(request_id, photos, _wanted(request))


def _photos(
    tensor: Mapping[str, Any], rest: bytes, max_photos: int, max_pixels: int
) -> tuple[ImageSource, ...]:
    if tensor.get("name") != INPUT:
        raise ProtocolError(f"there is no input {tensor.get('name')!r}; there is {INPUT!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise ProtocolError(f"shape must be a list of whole numbers above 0, not {shape!r}")
    count = shape[0] if len(shape) != 3 else 1
    if count > max_photos:
        raise ProtocolError(f"a request may hold {max_photos} photos, not {count}; send several requests")
    size = _parameters(tensor).get("binary_data_size")
    if size is not None and (type(size) is not int or size != len(rest)):
        raise ProtocolError(f"binary_data_size is {size!r}, but {len(rest)} bytes follow the JSON")
    if size is None and rest:
        raise ProtocolError("bytes follow the JSON, but the input has no binary_data_size")
    if tensor.get("datatype") == "BYTES":
        return _encoded(tensor, shape, rest if size is not None else None)
    if tensor.get("datatype") == "UINT8":
        return _arrays(tensor, shape, rest if size is not None else None, max_pixels)
    raise ProtocolError(
        f"datatype {tensor.get('datatype')!r} is not taken; send photo files as BYTES of shape [N], "
        "or RGB pixels as UINT8 of shape [N, H, W, 3]"
    )


def _encoded(tensor: Mapping[str, Any], shape: list[int], rest: bytes | None) -> tuple[bytes, ...]:
    if shape not in ([shape[0]], [shape[0], 1]):
        raise ProtocolError(f"BYTES must have the shape [N] or [N, 1], not {shape}")
    photos: list[bytes] = []
    if rest is None:
        texts = _flat(tensor.get("data"), len(shape))
        for text in texts:
            if not isinstance(text, str):
                raise ProtocolError("data of BYTES must be strings: each photo's file in base64")
            try:
                photos.append(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                raise ProtocolError(
                    "data of BYTES in JSON must be base64; or send it as binary data"
                ) from None
    else:
        position = 0
        while position < len(rest):
            if position + 4 > len(rest):
                raise ProtocolError("the binary data ends inside a length")
            (length,) = struct.unpack_from("<I", rest, position)
            position += 4 + length
            if position > len(rest):
                raise ProtocolError("the binary data ends inside an element")
            photos.append(rest[position - length : position])
            if len(photos) > shape[0]:
                break
    if len(photos) != shape[0]:
        raise ProtocolError(f"shape says {shape[0]} photos, the data holds {len(photos)}")
    return tuple(photos)


def _arrays(
    tensor: Mapping[str, Any], shape: list[int], rest: bytes | None, max_pixels: int
) -> tuple[Any, ...]:
    if len(shape) == 3:
        shape = [1, *shape]
    if len(shape) != 4 or shape[3] != 3:
        raise ProtocolError(f"UINT8 must have the shape [N, H, W, 3] or [H, W, 3], RGB, not {shape}")
    if shape[1] * shape[2] > max_pixels:
        raise ProtocolError(f"a photo has {shape[1] * shape[2]} pixels, more than the limit of {max_pixels}")
    expected = math.prod(shape)
    if rest is None:
        values = _flat(tensor.get("data"), 4)
        if not all(type(value) is int and 0 <= value <= 255 for value in values):
            raise ProtocolError("data of UINT8 must be whole numbers from 0 to 255")
        data = bytes(values)
    else:
        data = rest
    if len(data) != expected:
        raise ProtocolError(f"the shape {shape} needs {expected} values, the data holds {len(data)}")
    return tuple(np.frombuffer(data, dtype=np.uint8).reshape(shape))


def _flat(data: Any, depth: int) -> list[Any]:
    """Return the values of data that is flat or nested like its shape."""
    values: list[Any] = data if isinstance(data, list) else []
    if not isinstance(data, list):
        raise ProtocolError("the input has no data: a list, or binary data after the JSON")
    for _ in range(depth - 1):
        if not values or not isinstance(values[0], list):
            break
        if not all(isinstance(part, list) for part in values):
            raise ProtocolError("data is nested unevenly")
        values = [value for part in values for value in part]
    return values


def _parameters(of: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = of.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ProtocolError("parameters must be an object")
    return parameters


def _wanted(request: Mapping[str, Any]) -> tuple[tuple[str, bool], ...]:
    binary = _parameters(request).get("binary_data_output", False) is True
    outputs = request.get("outputs")
    if not outputs:
        return tuple((name, binary) for name in OUTPUTS)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise ProtocolError("outputs must be a list of objects")
    wanted = []
    for output in outputs:
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise ProtocolError(f"there is no output {name!r}; there are {', '.join(OUTPUTS)}")
        wanted.append((name, _parameters(output).get("binary_data", binary) is True))
    return tuple(wanted)


def infer_response(
    request: InferRequest, rows: Sequence[Row], model: str, version: str
) -> tuple[bytes, int | None]:
    """Return the body for the rows of a request, and the length of its JSON if bytes follow."""
    outputs, tail = [], []
    for name, binary in request.outputs:
        values = [_value(row, name) for row in rows]
        output: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [len(rows)]}
        if binary:
            data = _binary(values)
            output["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            output["data"] = values
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        answer["id"] = request.id
    header = json.dumps(answer).encode()
    return (b"".join((header, *tail)), len(header)) if tail else (header, None)


def _value(row: Row, name: str) -> str | float:
    if name == "status":
        return str(row["error"]["code"]) if row["error"] else "ok"
    if name == "answer":
        return json.dumps(row)
    if name == "confidence":
        return float(row["confidence"] or 0.0)
    return str(row[name] or "")


def _binary(values: Sequence[str | float]) -> bytes:
    if values and isinstance(values[0], float):
        return np.asarray(values, dtype="<f4").tobytes()
    encoded = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)
