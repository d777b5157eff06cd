"""Makes an int8 variant of an image stage.

Static, QDQ, weights per channel: scales are fixed once, from training photos, and the graph stays standard
ONNX. Normalisation and classifier stay float: they cost next to nothing, while onnxruntime's integer addition
on pixels would cost most of what the rest gains; `cascade verify` prints the time of each variant.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["CALIBRATION_PHOTOS", "quantize_stage"]

#: Photos that fix the ranges of activations; with twice as many they hardly move.
CALIBRATION_PHOTOS = 128


class _Photos(CalibrationDataReader):
    def __init__(self, name: str, photos: npt.NDArray[Any]) -> None:
        self._feeds: Iterator[dict[str, npt.NDArray[Any]]] = iter({name: photo[None]} for photo in photos)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._feeds, None)


def quantize_stage(
    model: onnx.ModelProto, photos: npt.NDArray[Any], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Quantise an image stage.

    Args:
        model: float32, as `cascade.training.export.image_graph.export_stage` gives it; not changed.
        photos: training photos as the stage takes them: uint8 (N, H, W, 3), or features (N, ...).
        metadata: goes into the graph's metadata_props.
    """
    level = logging.getLogger().level
    with tempfile.TemporaryDirectory() as scratch:
        given, ready, done = (Path(scratch) / name for name in ("given.onnx", "ready.onnx", "int8.onnx"))
        onnx.save(model, given)
        logging.getLogger().setLevel(logging.ERROR)  # onnxruntime advises the root logger
        try:
            quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(done),
                _Photos(model.graph.input[0].name, photos),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=["Conv", "Clip", "Add"],
                nodes_to_exclude=_before_first_convolution(onnx.load(ready)),
            )
        finally:
            logging.getLogger().setLevel(level)
        quantized = onnx.load(done)
    # A bundle holds standard operators only; the import of others is there even when none is used.
    standard = [opset for opset in quantized.opset_import if opset.domain in ("", "ai.onnx")]
    del quantized.opset_import[:]
    quantized.opset_import.extend(standard)
    del quantized.metadata_props[:]
    helper.set_model_props(quantized, {**metadata, "cascade.variant": "int8"})
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _before_first_convolution(model: onnx.ModelProto) -> list[str]:
    names: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            return names
        names.append(node.name)
    return names
