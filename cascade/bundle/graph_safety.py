"""Looks into an ONNX graph before it is loaded, and refuses what could harm.

A bundle may come from anywhere, and onnxruntime does what a graph tells it to. Refused here:

- tensors kept in other files (external data): their paths may point anywhere on this machine;
- operators and functions outside of the ONNX standard: code of somebody else would have to be loaded;
- loops (Loop, Scan): they need not end;
- sizes that the file cannot mean: a tensor with more elements than the file has bytes for, a constant shape
  that asks for gigabytes, graphs nested or long without bound.

This reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) with the field numbers
of onnx.proto3, and only as far as it must: the light install has no onnx package, and a parser that builds
objects from hostile input is what is to be avoided. Sizes that a graph computes while it runs are beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from cascade.errors import BundleError

__all__ = ["MAX_GRAPH_BYTES", "MAX_NODES", "check_graph"]

#: A graph of a bundle is some megabytes; protobuf itself ends at 2 GiB.
MAX_GRAPH_BYTES: Final = 1 << 30

_MAX_ELEMENTS: Final = 1 << 28
MAX_NODES: Final = 100_000
_MAX_DEPTH: Final = 16
_STANDARD_DOMAINS: Final = frozenset({b"", b"ai.onnx"})
_ENDLESS: Final = frozenset({b"Loop", b"Scan"})
#: Operators whose output is as large as an input says, and which input that is.
_SIZED_BY: Final = {b"ConstantOfShape": 0, b"Expand": 1, b"Tile": 1, b"Reshape": 1}

#: Bits of one element by TensorProto.DataType; strings count as one byte.
_BITS: Final = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 8, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64,
    15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8,
}  # fmt: skip
_INT64: Final = 7

# Field numbers of onnx.proto3.
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_GRAPH_NODES, _GRAPH_INITIALIZERS, _GRAPH_SPARSE = 1, 5, 15
_NODE_INPUTS, _NODE_OUTPUTS, _NODE_OPERATOR, _NODE_ATTRIBUTES, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_TENSOR_INT64S: Final = 7
_SPARSE_VALUES, _SPARSE_INDICES, _SPARSE_DIMS = 1, 2, 3
_OPSET_DOMAIN: Final = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_graph(content: bytes, where: object) -> None:
    """Refuse a graph that must not be loaded; see the module.

    Args:
        content: of the file.
        where: the file, for messages.

    Raises:
        BundleError: with the reason.
    """
    if len(content) > MAX_GRAPH_BYTES:
        raise BundleError(f"{where}: is larger than {MAX_GRAPH_BYTES >> 20} MiB, the limit for one graph")
    try:
        _Check(where).model(memoryview(content))
    except (IndexError, ValueError) as error:
        raise BundleError(f"{where}: is not an ONNX graph, or is damaged; copy the bundle again") from error


class _Check:
    """One pass over one file."""

    def __init__(self, where: object) -> None:
        self._where = where
        self._nodes = 0

    def _refuse(self, what: str) -> BundleError:
        return BundleError(f"{self._where}: {what}; such a graph is not loaded")

    def model(self, data: memoryview) -> None:
        graphs = 0
        for number, value in _fields(data):
            if number == _MODEL_GRAPH:
                graphs += 1
                self.graph(_message(value), 0)
            elif number == _MODEL_OPSETS:
                for field, domain in _fields(_message(value)):
                    if field == _OPSET_DOMAIN:
                        self.domain(domain)
            elif number == _MODEL_FUNCTIONS:
                raise self._refuse("it brings functions of its own in place of standard operators")
            elif number == _MODEL_TRAINING:
                raise self._refuse("it holds training information")
        if graphs != 1:
            raise ValueError("no graph, or several")

    def domain(self, value: Any) -> None:
        name = bytes(_message(value))
        if name not in _STANDARD_DOMAINS:
            shown = name.decode("utf-8", "backslashreplace")
            raise self._refuse(f"it uses operators that are not of the ONNX standard ({shown!r})")

    def graph(self, data: memoryview, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self._refuse(f"its graphs are nested more than {_MAX_DEPTH} deep")
        shapes: dict[bytes, list[int]] = {}
        nodes = []
        for number, value in _fields(data):
            if number == _GRAPH_INITIALIZERS:
                self.tensor(_message(value), shapes)
            elif number == _GRAPH_SPARSE:
                self.sparse(_message(value))
            elif number == _GRAPH_NODES:
                nodes.append(_message(value))
        for node in nodes:
            self.node(node, shapes, depth)

    def node(self, data: memoryview, shapes: dict[bytes, list[int]], depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refuse(f"it has more than {MAX_NODES:,} operators")
        operator = b""
        inputs: list[bytes] = []
        outputs: list[bytes] = []
        constant: dict[bytes, list[int]] = {}
        for number, value in _fields(data):
            if number == _NODE_OPERATOR:
                operator = bytes(_message(value))
            elif number == _NODE_DOMAIN:
                self.domain(value)
            elif number == _NODE_INPUTS:
                inputs.append(bytes(_message(value)))
            elif number == _NODE_OUTPUTS:
                outputs.append(bytes(_message(value)))
            elif number == _NODE_ATTRIBUTES:
                self.attribute(_message(value), constant, depth)
        if operator in _ENDLESS:
            raise self._refuse(f"it has a loop ({operator.decode()}), which need not end")
        if operator == b"Constant" and outputs and constant:
            shapes[outputs[0]] = next(iter(constant.values()))
        position = _SIZED_BY.get(operator)
        if position is not None and position < len(inputs):
            wanted = math.prod(max(1, abs(size)) for size in shapes.get(inputs[position], ()))
            if wanted > _MAX_ELEMENTS:
                raise self._refuse(f"a {operator.decode()} asks for {wanted:,} elements")

    def attribute(self, data: memoryview, constant: dict[bytes, list[int]], depth: int) -> None:
        for number, value in _fields(data):
            if number in _ATTRIBUTE_TENSORS:
                self.tensor(_message(value), constant)
            elif number in _ATTRIBUTE_GRAPHS:
                self.graph(_message(value), depth + 1)
            elif number in _ATTRIBUTE_SPARSE:
                self.sparse(_message(value))

    def sparse(self, data: memoryview) -> None:
        dims = []
        for number, value in _fields(data):
            if number in (_SPARSE_VALUES, _SPARSE_INDICES):
                self.tensor(_message(value), {})
            elif number == _SPARSE_DIMS:
                dims += _integers(value)
        if math.prod(max(1, abs(size)) for size in dims) > _MAX_ELEMENTS:
            raise self._refuse(f"a sparse tensor has the size {dims}")

    def tensor(self, data: memoryview, shapes: dict[bytes, list[int]]) -> None:
        """Check a tensor; if it could be a shape, keep its values under its name."""
        dims: list[int] = []
        kind, name, raw = 0, b"", None
        integers: list[int] = []
        for number, value in _fields(data):
            if number == _TENSOR_DIMS:
                dims += _integers(value)
            elif number == _TENSOR_TYPE:
                kind = _integers(value)[-1]
            elif number == _TENSOR_NAME:
                name = bytes(_message(value))
            elif number == _TENSOR_RAW:
                raw = _message(value)
            elif number == _TENSOR_INT64S and len(dims) <= 1 and sum(dims) <= _MAX_DEPTH:
                integers += _integers(value)
            elif number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and _integers(value) != [0]):
                raise self._refuse("it keeps tensors in other files")
        if any(size < 0 for size in dims):
            raise self._refuse(f"a tensor has the size {dims}")
        elements = math.prod(dims)
        # Packed into varints, an element still takes at least a byte; four bits is the least of raw data.
        room = 2 * len(data)
        if elements > room or (
            raw is not None and kind in _BITS and len(raw) != (elements * _BITS[kind] + 7) // 8
        ):
            raise self._refuse(f"a tensor of the size {dims} does not fit into its {len(data):,} bytes")
        if kind == _INT64 and len(dims) <= 1 and elements <= _MAX_DEPTH:
            if raw is not None:
                integers = [
                    int.from_bytes(raw[start : start + 8], "little", signed=True)
                    for start in range(0, len(raw), 8)
                ]
            shapes[name] = integers


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a message; a value is an int, or a view of its bytes."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if length > end - position:
            raise ValueError("a field is longer than its message")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError("a number does not end")


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number stands where a message should")
    return value


def _integers(value: Any) -> list[int]:
    """One number, or packed ones, as signed 64-bit."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
