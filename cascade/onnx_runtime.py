"""The one place that imports onnxruntime, because its telemetry must be switched off before the first import.

onnxruntime 1.31 and later look up a host on the internet and keep a queue and a device id below the user's
cache folder; the queue holds file names of models and metadata of graphs. ``disable_telemetry_events()``
comes too late to stop that; the environment variable does stop it. A program that imports onnxruntime before
cascade has to set the variable itself: nothing that runs later can take the first import back.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["TELEMETRY_ENVIRONMENT_VARIABLE", "ort"]

#: "1" switches telemetry off. A value that the user has set is left alone.
TELEMETRY_ENVIRONMENT_VARIABLE: Final = "ORT_DISABLE_TELEMETRY"

if not os.environ.get(TELEMETRY_ENVIRONMENT_VARIABLE):
    os.environ[TELEMETRY_ENVIRONMENT_VARIABLE] = "1"

import onnxruntime as ort  # noqa: E402  the variable comes first
