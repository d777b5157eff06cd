"""Prepares a photo's pixels inside an ONNX graph: reduction and resize, as `cascade.imaging` computes them.

The reduction repeats Pillow's `Image.reduce` to the last bit. The resize repeats its two passes, with
rounding between them, in float32 where Pillow uses fixed-point numbers: a pixel that lies within 1e-4 of the
middle between two grey levels may come out one level apart.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cascade.errors import UsageError
from cascade.export.nodes import DOUBLE, FLOAT, INT64, UINT8, Nodes
from cascade.imaging.preprocessing import InputSpec

__all__ = ["add_prepare", "add_reduction"]

_FACTORS = (2, 4, 8)
#: Pillow multiplies by 2^24 / count, rounded down. Where count is no power of two, an exact quotient so ends
#: one too low; a reciprocal this much too small does the same in float32.
_TOO_SMALL = 1e-6
_KERNELS: Final[dict[str, dict[str, Any]]] = {
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
    "bilinear": {"mode": "linear"},
}


def add_reduction(g: Nodes, image: str, target: tuple[int, int], reducing_gap: float) -> str:
    """Reduce a photo by the factor of `cascade.imaging.decoding.reduction_factor`.

    Args:
        g: receives the nodes.
        image: uint8 (H, W, 3), upright RGB.
        target: (width, height) that must remain, see there.
        reducing_gap: see there.

    Returns:
        float32 (1, 3, h, w), whole numbers from 0 to 255.
    """
    height, width = _sides(g, image)
    sides = [g("Cast", side, to=DOUBLE) for side in (width, height)]
    wanted = [g.constant([side * reducing_gap], np.float64) for side in target]
    fits = []
    for factor in _FACTORS:
        scale = g.constant([factor], np.float64)
        across, down = (
            g("GreaterOrEqual", g("Div", side, scale), limit)
            for side, limit in zip(sides, wanted, strict=True)
        )
        fits.append(g("And", across, down))
    return _reduced(g, image, fits, 1)


def _reduced(g: Nodes, image: str, fits: list[str], factor: int) -> str:
    """Return the photo reduced by ``factor``, or by more where the next factors fit."""
    if not fits:
        return _block_means(g, image, factor)
    more, less = g.inner(), g.inner()
    larger = _reduced(more, image, fits[1:], factor * 2)
    same = _block_means(less, image, factor) if factor > 1 else _planes(less, image)
    return g.choose(fits[0], (more, larger), (less, same), FLOAT)


def _planes(g: Nodes, image: str) -> str:
    planes = g("Cast", g("Transpose", image, perm=[2, 0, 1]), to=FLOAT)
    return g("Unsqueeze", planes, g.constant([0], np.int64))


def _block_means(g: Nodes, image: str, factor: int) -> str:
    """Average blocks of factor x factor pixels; those at the right and lower edge may be smaller."""
    one, block = (g.constant([value], np.int64) for value in (1, factor))
    rows, columns = _sides(g, image)
    down, across = (
        g("Div", g("Add", side, g.constant([factor - 1], np.int64)), block) for side in (rows, columns)
    )
    missing = [g("Sub", g("Mul", n, block), side) for n, side in ((down, rows), (across, columns))]
    zero = g.constant([0], np.int64)
    pads = g("Concat", zero, zero, zero, *missing, zero, axis=0)
    padded = g("Pad", image, pads, g.constant(0, np.uint8))
    # Rows are summed as bytes, which moves a quarter of the memory that floats would; (h, 1, w f 3) int32.
    row = g("Mul", g("Mul", across, block), g.constant([3], np.int64))
    by_rows = g("Reshape", padded, g("Concat", down, block, row, axis=0))
    sums = g("MatMulInteger", g.constant(np.ones((1, factor)), np.uint8), by_rows)
    # Columns are summed by a product that also takes the colours apart: (3, h w).
    taken = np.tile(np.eye(3), factor)
    blocks = g("Reshape", g("Cast", sums, to=FLOAT), g.constant([-1, 3 * factor], np.int64))
    planes = g("Gemm", g.constant(taken), blocks, transB=1)
    total = g("Reshape", planes, g("Concat", g.constant([3], np.int64), down, across, axis=0))
    counts, reciprocals = [], []
    for n, absent, shape in ((down, missing[0], [-1, 1]), (across, missing[1], [1, -1])):
        full = g("Expand", block, g("Sub", n, one))
        count = g("Concat", full, g("Sub", block, absent), axis=0)
        count = g("Reshape", count, g.constant(shape, np.int64))
        counts.append(g("Cast", count, to=FLOAT))
        reciprocals.append(g("Gather", g.constant(_reciprocals(factor)), count))
    half = g("Floor", g("Mul", g("Mul", *counts), g.constant(0.5)))
    mean = g("Floor", g("Mul", g("Add", total, half), g("Mul", *reciprocals)))
    return g("Unsqueeze", mean, zero)


def _reciprocals(factor: int) -> list[float]:
    """Return 1 / count for counts from 0 to ``factor``; that of 0 is never used."""
    numbers = range(1, factor + 1)
    return [0.0, *(1 / n if n & (n - 1) == 0 else (1 - _TOO_SMALL) / n for n in numbers)]


def add_prepare(g: Nodes, planes: str, spec: InputSpec) -> str:
    """Resize and crop a reduced photo as `cascade.imaging.preprocessing.prepare` does.

    Args:
        g: receives the nodes.
        planes: float32 (1, 3, h, w), whole numbers from 0 to 255.
        spec: of the stage.

    Returns:
        uint8 (1, height, width, 3).

    Raises:
        UsageError: for an interpolation that ONNX does not have.
    """
    if spec.interpolation not in _KERNELS:
        raise UsageError(
            f"a stage is fed with interpolation {spec.interpolation!r}, which ONNX does not have; "
            f"train the bundle with one of {', '.join(_KERNELS)}"
        )
    if spec.crop == "squash":
        scaled = [g.constant([side], np.int64) for side in (spec.width, spec.height)]
    else:
        scaled = _scaled_for_center(g, planes, spec)
    # Horizontal pass first. The crop commutes with the other pass, so it is taken as soon as it can be.
    for axis, side, wanted in ((3, scaled[0], spec.width), (2, scaled[1], spec.height)):
        planes = _resized(g, planes, axis, side, spec)
        if spec.crop != "squash":
            planes = _middle(g, planes, axis, side, wanted)
    return g("Cast", g("Transpose", planes, perm=[0, 2, 3, 1]), to=UINT8)


def _resized(g: Nodes, planes: str, axis: int, side: str, spec: InputSpec) -> str:
    """One pass, rounded to whole grey levels as Pillow's intermediate image is."""
    passed = g(
        "Resize",
        planes,
        "",
        "",
        side,
        axes=[axis],
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
        **_KERNELS[spec.interpolation],
    )
    nearest = g("Floor", g("Add", passed, g.constant(0.5)))
    return g("Clip", nearest, g.constant(0.0), g.constant(255.0))


def _middle(g: Nodes, planes: str, axis: int, side: str, wanted: int) -> str:
    spare = g("Sub", side, g.constant([wanted], np.int64))
    start = g("Round", g("Div", g("Cast", spare, to=DOUBLE), g.constant([2.0], np.float64)))
    start = g("Cast", start, to=INT64)
    end = g("Add", start, g.constant([wanted], np.int64))
    return g("Slice", planes, start, end, g.constant([axis], np.int64))


def _scaled_for_center(g: Nodes, planes: str, spec: InputSpec) -> list[str]:
    """Return width and height before the crop; `cascade.imaging.preprocessing` explains the two ways."""
    shape = g("Shape", planes)
    sides = [g("Cast", g("Gather", shape, g.constant([axis], np.int64)), to=DOUBLE) for axis in (3, 2)]
    wanted = [g.constant([int(n / spec.crop_fraction)], np.float64) for n in (spec.width, spec.height)]
    if spec.width == spec.height:
        short = g("Min", *sides)
        exact = [g("Div", g("Mul", w, side), short) for w, side in zip(wanted, sides, strict=True)]
        return [g("Cast", g("Floor", side), to=INT64) for side in exact]
    ratio = g("Min", *(g("Div", side, w) for side, w in zip(sides, wanted, strict=True)))
    return [g("Cast", g("Round", g("Div", side, ratio)), to=INT64) for side in sides]


def _sides(g: Nodes, image: str) -> tuple[str, str]:
    """Return height and width of (H, W, 3), int64 of one element each."""
    shape = g("Shape", image)
    return g("Gather", shape, g.constant([0], np.int64)), g("Gather", shape, g.constant([1], np.int64))
