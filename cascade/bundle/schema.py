"""Declares what bundle.json holds; reads and checks it.

`cascade.bundle.json_schema` generates the published `bundle.schema.json` from this declaration.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from cascade.bundle.stage import Arbiter, Expert, General, Name, Router, Scope, Sha256
from cascade.errors import BundleError
from cascade.guarantees.budget import BudgetCurve
from cascade.guarantees.conformal_sets import LabelSets
from cascade.guarantees.drift import Reference
from cascade.guarantees.risk_control import Promise
from cascade.policy import OperatingPoint
from cascade.validated import Validated

__all__ = ["FORMAT_VERSION", "Label", "Manifest", "Stages", "read_json"]

FORMAT_VERSION: Final = 1

#: A manifest of the shipped bundle has some hundred kilobytes.
_MAX_BYTES: Final = 64 << 20


class Label(Validated, frozen=True, kw_only=True):
    """A leaf and its parent."""

    label: Name
    parent: Name


class Stages(Validated, frozen=True, kw_only=True):
    """Every graph of the bundle.

    Attributes:
        experts: in the order of the router's and arbiter's columns; may be empty.
        router: null if there are no experts.
        arbiter: present in every bundle; without experts it only calibrates.
        scope: null if no operating point asks for it.
    """

    general: General
    experts: Annotated[tuple[Expert, ...], msgspec.Meta(max_length=1000)]
    router: Router | None = None
    arbiter: Arbiter
    scope: Scope | None = None


class Manifest(Validated, frozen=True, kw_only=True):
    """What a bundle holds and how its graphs are used.

    Keys that are not named here are allowed and ignored, except in `input` of a stage.

    Attributes:
        labels: the leaves, in the order of the columns of `probabilities`, each with its parent.
        operating_points: what decides between a label, a broader label and unknown; has `default`.
        promise: numbers behind promises about error; null if nothing can be promised.
        budget: the dial between speed and accuracy; null without experts, or if the bundle was made without.
        label_sets: numbers behind label sets; null if the bundle was made without.
        reference: what the calibration photos looked like, to notice drift; null likewise.
        files: SHA-256 of every file of the bundle but this one and a signature, by path below the bundle.
        provenance: recipes, data sources, licences, commit.
        measured: figures of the exported graphs.
    """

    format_version: Literal[1]
    name: Name
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*[0-9A-Za-z.+-]*$", max_length=64)]
    minimum_onnxruntime: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=32)]
    labels: Annotated[tuple[Label, ...], msgspec.Meta(min_length=2, max_length=100_000)]
    stages: Stages
    operating_points: Annotated[
        dict[str, OperatingPoint], msgspec.Meta(extra_json_schema={"required": ["default"]})
    ]
    promise: Promise | None = None
    budget: BudgetCurve | None = None
    label_sets: LabelSets | None = None
    reference: Reference | None = None
    files: dict[str, Sha256] | msgspec.UnsetType = msgspec.UNSET
    provenance: dict[str, Any] = msgspec.field(default_factory=dict)
    measured: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "default" not in self.operating_points:
            raise BundleError("operating_points: there is no operating point 'default'")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and check a bundle.json.

        Raises:
            BundleError: when it cannot be read or is wrong; names the file, the place and what is wrong.
        """
        try:
            data = read_json(path)
            found = data.get("format_version") if isinstance(data, dict) else FORMAT_VERSION
            if found != FORMAT_VERSION:
                raise BundleError(
                    f"has format version {found!r}, this cascade reads {FORMAT_VERSION}; "
                    "install the cascade that wrote it or train the bundle again"
                )
            return cls.from_dict(data)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None


def read_json(path: Path) -> Any:
    """Return the parsed content of a bundle.json; what it means is for `Manifest`.

    Raises:
        BundleError: when it cannot be read or is no JSON; ``path`` is not in the message.
    """
    try:
        with path.open("rb") as file:
            # Room is reserved for as many bytes as are asked for, so ask for what is there.
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, _MAX_BYTES) + 1)
        if len(content) > _MAX_BYTES:
            raise BundleError(f"is larger than {_MAX_BYTES >> 20} MiB, which no manifest is")
        return json.loads(
            content.decode("utf-8"), parse_constant=_refuse_constant, parse_int=_whole, parse_float=_real
        )
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise BundleError(
            f"is not JSON (line {error.lineno}: {error.msg}); copy the bundle again or train it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"is not JSON ({error}); copy the bundle again or train it again") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _whole(text: str) -> int:
    _real(text)
    return int(text)


def _real(text: str) -> float:
    """Return a number; what no 64 bits can hold is refused here, before anything computes with it."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:12]}... is too large for a number")
    return number
