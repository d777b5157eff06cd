"""Runs an exported single file as a model of MLflow. Needs numpy and onnxruntime only.

A copy of this file lies in the exported folder, so that MLflow can load it without the package `cascade`.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import that reads it
import onnxruntime as ort


class _Model:
    """Answers for one photo: uint8 (H, W, 3), upright RGB, any size."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._answers, self._reasons = json.loads(metadata["answers"]), json.loads(metadata["reasons"])

    def predict(self, model_input: Any, params: Any = None) -> dict[str, Any]:
        """Return label, confidence and reason of a photo, or of the `image` in a mapping."""
        image = model_input["image"] if isinstance(model_input, dict) else model_input
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(
                f"image must be one upright RGB photo, uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}"
            )
        names = ["answer", "confidence", "reason"]
        answer, confidence, reason = self._session.run(names, {"image": pixels})
        return {
            "label": self._answers[int(answer[0])],
            "confidence": float(confidence[0]),
            "reason": self._reasons[int(reason[0])],
        }


def _load_pyfunc(path: str) -> _Model:
    """Load the model; MLflow calls this with the file that `MLmodel` names."""
    return _Model(path)
