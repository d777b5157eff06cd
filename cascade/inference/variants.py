"""Chooses the variant of a bundle that runs on this machine, and remembers the choice.

A variant that `cascade.inference.golden_check` finds usable here is preferred to the exact graphs. Nothing is
timed for that: on a busy machine the same command would run other graphs. `cascade verify` does measure, and
what it finds is remembered in place of this choice. Choices are kept per bundle, onnxruntime and processor,
see `cascade.cache`. Where none can be kept the exact graphs run, because the check, a second or more, would
be paid at every start. A bundle with one variant is never checked: there is nothing to choose.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cascade import cache
from cascade.bundle.manifest import MANIFEST, Bundle
from cascade.bundle.stage import EXACT
from cascade.inference.golden_check import Checked, verify
from cascade.onnx_runtime import ort

__all__ = [
    "AUTO",
    "VariantChoice",
    "choose",
    "choose_variant",
    "remember_choice",
]

AUTO: Final = "auto"

#: A variant must be this much faster than the exact one; less is not worth any difference.
_WORTH: Final = 0.95


@dataclass(frozen=True, slots=True)
class VariantChoice:
    """The variant to run and why, in words for people."""

    variant: str
    why: str


def choose_variant(bundle: Bundle) -> VariantChoice:
    """Return the variant to run on this machine; what was found before is looked up.

    Raises:
        BundleError: when the bundle's golden outputs cannot be used.
    """
    if bundle.variants == (EXACT,):
        return VariantChoice(EXACT, "the bundle has no other")
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(cache.read_note(_note(bundle)) or "")
        if found["variant"] in bundle.variants:
            return VariantChoice(str(found["variant"]), str(found["why"]))
    if not cache.is_writable():
        return VariantChoice(
            EXACT,
            "no other was checked, because the result could not be kept; set "
            f"${cache.CACHE_ENVIRONMENT_VARIABLE} to a folder that can be written, or give --variant",
        )
    choice = choose(verify(bundle))
    remember_choice(bundle, choice)
    return choice


def remember_choice(bundle: Bundle, choice: VariantChoice) -> bool:
    """Let `choose_variant` return this choice from now on; return whether it could be kept."""
    return cache.write_note(_note(bundle), json.dumps({"variant": choice.variant, "why": choice.why}))


def choose(checked: Sequence[Checked]) -> VariantChoice:
    """Return the first usable variant beside the exact one; if they were timed, the fastest usable one.

    Args:
        checked: the exact variant first.
    """
    exact = checked[0]
    usable = [one for one in checked[1:] if one.usable]
    if usable and exact.general_ms is None:
        return VariantChoice(usable[0].variant, "passed its check here")
    timed = [(one.general_ms, one.variant) for one in usable if one.general_ms is not None]
    if timed and exact.general_ms is not None:
        milliseconds, variant = min(timed)
        if milliseconds < _WORTH * exact.general_ms:
            return VariantChoice(
                variant,
                f"passed its check here; {milliseconds:.1f} ms per photo, exact {exact.general_ms:.1f} ms",
            )
    refused = [f"{one.variant}: {'; '.join(one.problems)}" for one in checked[1:] if not one.usable]
    return VariantChoice(EXACT, "; ".join(refused) or "no other is faster here")


def _key(bundle: Bundle) -> str:
    parts = [
        hashlib.sha256((bundle.folder / MANIFEST).read_bytes()).hexdigest(),
        ort.__version__,
        _processor(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _processor() -> str:
    """Return what names this processor, instruction sets included where the system tells them."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        named = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
        if named:
            return "\n".join(sorted(named))
    return f"{platform.machine()} {platform.processor()}"


def _note(bundle: Bundle) -> str:
    return f"variants/{_key(bundle)}.json"
