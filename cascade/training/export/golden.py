"""Writes the golden files of a bundle: small photographs of every kind, and what each step makes of them.

The photographs are samples of scikit-image whose licence allows everything (CC0 or public domain), stored in
the ways that embeddings get wrong: larger than the limit of reduction, tall, turned, grey, with transparency,
CMYK, 16 bits. Sizes follow from the bundle.
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from cascade.arrays import Bools, Pixels
from cascade.bundle.manifest import Bundle
from cascade.imaging.decoding import load_image, reduction_factor
from cascade.imaging.preprocessing import InputSpec, decoding_of
from cascade.inference.pipeline import Pipeline, StageOutputs
from cascade.inference.routing import ASK_MODES
from cascade.policy import OperatingPoint, best_of, decide
from cascade.training.export.readable_json import readable_json

__all__ = ["GoldenPhoto", "golden_photos", "write_golden"]

#: Within what another machine must agree, given the same prepared pixels; a scope score relative to itself.
#: With another decoder of JPEG, or blocks averaged where the decoder could have reduced: `file_...`.
TOLERANCE: Final = {
    "logits": 0.02,
    "probabilities": 0.005,
    "score_relative": 0.001,
    "pixels": 1,
    "file_pixels_mean": 1.5,
    "file_probabilities": 0.1,
}
_SIDE: Final = 240


@dataclass(frozen=True, slots=True)
class GoldenPhoto:
    """One file: its name, what it is there to prove, and its content."""

    file: str
    proves: str
    content: bytes


def golden_photos(limit: tuple[int, int] = (2 * _SIDE, 2 * _SIDE)) -> list[GoldenPhoto]:
    """Return the photographs.

    Args:
        limit: (width, height) from which on a photo is reduced by two.
    """
    from skimage import data

    names = ("coffee", "rocket", "chelsea", "astronaut")
    coffee, rocket, chelsea, astronaut = (
        Image.fromarray(np.asarray(getattr(data, name)())) for name in names
    )
    width, height = limit
    side = min(_SIDE, min(limit) * 3 // 4)
    return [
        _photo("coffee.png", "a PNG below the limit of reduction", _fitted(coffee, side)),
        _photo(
            "rocket.png",
            "a PNG above the limit, sides no multiples of two: blocks averaged, smaller ones at the edges",
            rocket.resize((width + 35, height + 1), Image.Resampling.LANCZOS),
        ),
        _photo(
            "large.jpg",
            "a JPEG above the limit: reduced by the decoder, or by averaging blocks",
            coffee.resize((math.ceil(width * 1.3), math.ceil(height * 1.1))),
        ),
        _photo(
            "tall.jpg",
            "a tall photo: the horizontal pass of the resize comes first",
            rocket.crop((200, 0, 440, 427)).resize((width // 3, height - 1)),
        ),
        _turned(_fitted(chelsea, side)),
        _photo("grey.png", "one channel", _fitted(chelsea, side).convert("L")),
        _photo("alpha.png", "transparency: put on white", _faded(_fitted(astronaut, side))),
        _photo("palette.png", "a palette", _fitted(rocket, side).quantize(64, Image.Quantize.MEDIANCUT)),
        _photo("cmyk.jpg", "CMYK without a profile", _fitted(coffee, side).convert("CMYK")),
        _photo("depth16.png", "16 bits: the upper eight are kept", _sixteen(_fitted(astronaut, side))),
    ]


def _photo(file: str, proves: str, image: Image.Image, **options: Any) -> GoldenPhoto:
    buffer = io.BytesIO()
    kind = {"quality": 80} if file.endswith(".jpg") else {"optimize": True}
    image.save(buffer, "JPEG" if file.endswith(".jpg") else "PNG", **kind, **options)
    return GoldenPhoto(file, proves, buffer.getvalue())


def _fitted(image: Image.Image, side: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _turned(image: Image.Image) -> GoldenPhoto:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    stored = image.transpose(Image.Transpose.ROTATE_90)
    return _photo("exif6.jpg", "EXIF orientation 6", stored, exif=exif)


def _faded(image: Image.Image) -> Image.Image:
    """From opaque at the left to transparent at the right."""
    row = np.linspace(255, 40, image.width).astype(np.uint8)
    faded = image.copy()
    faded.putalpha(Image.fromarray(np.tile(row, (image.height, 1))))
    return faded


def _sixteen(image: Image.Image) -> Image.Image:
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint16)
    return Image.fromarray((grey << 8) + (noise & 0xF0))


def write_golden(folder: Path, photos: Iterable[GoldenPhoto] | None = None) -> None:
    """Write `golden/`: photos, prepared inputs, what every stage says, and the decisions.

    `golden.json` holds, per photo, the file, its sizes, the prepared inputs (lossless) and every output of
    every graph with every expert asked, route and decision for each way of asking, and the same of every
    variant; per bundle, the tolerance within which another machine must agree. `decisions.json` is written
    by `cascade.training.export.packaging.write_policy`.
    """
    bundle = Bundle.load(folder)
    specs = [stage.input for stage in bundle.image_stages]
    target, gap = decoding_of(specs)
    if photos is None:
        width, height = (math.ceil(side * 2 * gap) for side in target)
        photos = golden_photos((width, height))
    home = folder / "golden"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    pipelines = {name: Pipeline.of(bundle.with_variant(name)) for name in bundle.variants}
    exact, *others = pipelines
    entries = []
    for photo in photos:
        path = home / photo.file
        path.write_bytes(photo.content)
        inputs = pipelines[exact].prepare([path]).inputs
        files = {spec: _prepared_name(path.stem, spec, inputs) for spec in inputs}
        for spec, pixels in inputs.items():
            Image.fromarray(pixels[0]).save(home / files[spec], optimize=True)
        size = load_image(path).size
        entry = _expected(bundle, pipelines[exact], inputs)
        averaged = pipelines[exact].prepare([np.asarray(load_image(path))]).inputs
        entries.append(
            {
                "photo": path.name,
                "proves": photo.proves,
                "size": size,
                "reduction": reduction_factor(size, target, gap),
                "decoded_size": load_image(path, target=target, reducing_gap=gap).size,
                "prepared": {s.name: files[s.input] for s in bundle.image_stages},
                **entry,
                # What becomes of it when blocks are averaged although the decoder could have reduced.
                "if_blocks_averaged": {
                    "pixels_mean": _plain([max(_mean_distance(inputs[s], averaged[s]) for s in specs)])[0],
                    "probabilities": _plain(
                        [_farthest(_expected(bundle, pipelines[exact], averaged), entry)]
                    )[0],
                },
                "variants": {name: _expected(bundle, pipelines[name], inputs) for name in others},
            }
        )
    golden = {"tolerance": TOLERANCE, "photos": entries}
    (home / "golden.json").write_text(readable_json(golden), encoding="utf-8")


def _mean_distance(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def _farthest(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the largest difference of a probability, for whichever way of asking."""
    keys = [f"probabilities_{ask}" for ask in ASK_MODES]
    return max(float(np.abs(np.subtract(one[key], other[key])).max()) for key in keys)


def _prepared_name(photo: str, spec: InputSpec, specs: Iterable[InputSpec]) -> str:
    """Return the file of a prepared input; inputs of one size that differ otherwise are numbered."""
    name = f"{photo}.{spec.width}x{spec.height}.{spec.crop}"
    alike = [s for s in specs if (s.width, s.height, s.crop) == (spec.width, spec.height, spec.crop)]
    number = alike.index(spec)
    return f"{name}.{number + 1}.png" if number else f"{name}.png"


def _expected(bundle: Bundle, pipeline: Pipeline, inputs: Mapping[InputSpec, Any]) -> dict[str, Any]:
    """Return what another machine must find; `cascade.inference.golden_check` compares it."""
    point = bundle.operating_points["default"]
    outs = {ask: pipeline.run(inputs, ask=ask, cost_weight=point.cost_weight) for ask in ASK_MODES}
    out, routed = outs["always"], outs["router"]
    return {
        "general_logits": _plain(out.general_logits[0]),
        "embedding": _plain(out.embedding[0]),
        "scope_score": None if out.scope_score is None else _plain(out.scope_score)[0],
        "expert_logits": {name: _plain(logits[0]) for name, logits in out.expert_logits.items()},
        "gain": _plain(routed.gain[0]),
        "asked_by_router": [bool(x) for x in routed.deferred[0]],
        **{f"probabilities_{ask}": _plain(one.probabilities[0]) for ask, one in outs.items()},
        "decisions": {ask: _decision(bundle, point, one, ask) for ask, one in outs.items()},
    }


def _decision(bundle: Bundle, point: OperatingPoint, out: StageOutputs, ask: str) -> dict[str, Any]:
    """Return the answer, and by how much a probability or gain may move before it could be another one."""
    score = None if out.scope_score is None else float(out.scope_score[0])
    decision = decide(out.probabilities[0], bundle.tree, point, score)
    best = best_of(out.probabilities, bundle.tree)
    leaves = np.sort(out.probabilities[0].astype(float))
    away = [leaves[-1] - leaves[-2], abs(best.leaf_confidence[0] - point.leaf_threshold)]
    away.append(abs(best.parent_confidence[0] - point.parent_threshold))
    if ask == "router" and bundle.experts:
        prices = np.array([point.cost_weight * expert.cost for expert in bundle.experts])
        away.append(np.abs(out.gain[0] - prices).min())
    if point.scope_threshold is not None and score is not None:
        away.append(abs(score - point.scope_threshold) / max(abs(point.scope_threshold), 1e-9))
    return {
        "label": decision.label,
        "parent": decision.parent,
        "confidence": _plain([decision.confidence])[0],
        "reason": decision.reason,
        "asked": _deferred(bundle, out.deferred[0]),
        "margin": _plain([min(away)])[0],
    }


def _deferred(bundle: Bundle, row: Bools) -> list[str]:
    return [expert.name for expert, deferred in zip(bundle.experts, row, strict=True) if deferred]


def _plain(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]
