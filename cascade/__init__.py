"""cascade says what a photo shows: fast on a CPU, calibrated, and honest when it does not know.

>>> from cascade import Cascade
>>> Cascade().predict("photo.jpg").label
'bedroom'
"""

from cascade.bundle.manifest import Bundle
from cascade.classifier import Cascade
from cascade.errors import (
    BundleError,
    CascadeError,
    DataError,
    ImageError,
    MissingExtraError,
    OutputError,
    RecipeError,
    UsageError,
)
from cascade.policy import Decision, OperatingPoint, decide
from cascade.prediction import ErrorInfo, Opinion, Prediction

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "Cascade",
    "CascadeError",
    "DataError",
    "Decision",
    "ErrorInfo",
    "ImageError",
    "MissingExtraError",
    "OperatingPoint",
    "Opinion",
    "OutputError",
    "Prediction",
    "RecipeError",
    "UsageError",
    "__version__",
    "decide",
]
