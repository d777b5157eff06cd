"""Says which files cannot be read, and which photos are odd for reasons that need no model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

from cascade.audit.examine import Facts
from cascade.audit.finding import Finding
from cascade.audit.listing import Listed

__all__ = ["odd_files"]

#: Pixels of the shorter side under which a photo is tiny: less than half of the 160 that the model sees.
_TINY: Final = 64
#: A photo longer than this many times its height, or the other way round, is a strip.
_STRIP: Final = 3.0
#: Standard deviation of the grey values, 0..255, under which a photo shows nothing.
_BLANK: Final = 4.0
#: Share of the rows, from the lower end, that may be of one colour.
_FLAT: Final = 0.2
#: Share of a label's photos that are in colour from which a grey one is odd.
_COLOURED: Final = 0.9

_JPEG: Final = (".jpg", ".jpeg", ".jpe", ".jfif")
#: Format -> how the names of its files end. Raw photos are TIFFs with names of their own and not looked at.
_ENDINGS: Final = {
    "JPEG": (*_JPEG, ".mpo"),
    "MPO": (*_JPEG, ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
}


def odd_files(photos: Sequence[Listed], facts: Sequence[Facts]) -> Iterator[Finding]:
    """Yield what is odd about files, in their order; a photo may be odd in several ways.

    Args:
        photos: N.
        facts: of each.
    """
    colourful = _mostly_in_colour(photos, facts)
    for photo, fact in zip(photos, facts, strict=True):
        found = _if_read(fact, photo, photo.label in colourful) if fact.readable else _unread(fact)
        for kind, score, detail in found:
            yield Finding(kind, photo.shown, photo.label, score, detail, split=photo.split)


def _unread(fact: Facts) -> Iterator[tuple[str, float, str]]:
    yield "corrupt", 1.0, f"{fact.code}: {fact.message}"


def _if_read(fact: Facts, photo: Listed, colourful: bool) -> Iterator[tuple[str, float, str]]:
    if fact.partial:
        yield "corrupt", 0.9, fact.message
    if fact.contrast < _BLANK:
        yield "blank", 1.0 - fact.contrast / _BLANK, f"its grey values differ by {fact.contrast:.1f} of 255"
    elif fact.flat >= _FLAT:
        yield "part_missing", fact.flat, f"the lower {100 * fact.flat:.0f} % are of one colour"
    short, long = sorted((fact.width, fact.height))
    if short < _TINY:
        yield "tiny", 1.0 - short / _TINY, f"{fact.width} x {fact.height} pixels"
    if long > _STRIP * short:
        yield "extreme_aspect", 1.0 - _STRIP * short / long, f"{fact.width} x {fact.height} pixels"
    if fact.exif:
        yield "exif", 1.0, fact.exif
    if fact.grey and colourful and fact.contrast >= _BLANK:
        yield "grey", 1.0, "has no colour; nearly all other photos of its label do"
    endings = _ENDINGS.get(fact.format)
    suffix = PurePath(photo.path).suffix.lower()
    if endings is not None and suffix not in endings:
        yield "wrong_extension", 1.0, f"is {fact.format}, and its name ends with {suffix or 'nothing'}"


def _mostly_in_colour(photos: Sequence[Listed], facts: Sequence[Facts]) -> set[str]:
    seen: dict[str, list[bool]] = defaultdict(list)
    for photo, fact in zip(photos, facts, strict=True):
        if fact.readable:
            seen[photo.label].append(fact.grey)
    return {label for label, grey in seen.items() if 1 - sum(grey) / len(grey) >= _COLOURED}
