"""Says whether two photos are one picture: finds one inside the other, at every scale, also mirrored.

Different photos of one room have embeddings as close as those of a photo and its copy; their pixels do not
fall on each other. So a pair of close embeddings is looked at again: each photo, shrunk step by step, is laid
on every place of the other by normalised cross-correlation (J. P. Lewis, Fast Normalized Cross-Correlation,
1995), computed with the FFT. Before that, broad light and shade is taken out of both, since all photos of a
sky or a desert share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cascade.arrays import Bools, Float32s, Float64s, Floats, Pixels

__all__ = ["COARSE", "FINE", "Pattern", "Resolution", "Scene", "best_match", "coarse_scores", "copy_score"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """How closely pictures are compared.

    Attributes:
        side: pixels of the longer side.
        step: natural logarithm of the ratio of neighbouring scales.
        smallest: smallest scale; 0.55 finds a cut-out of 30 % of the area.
        blur: standard deviation, in pixels, of the light and shade that is taken out.
    """

    side: int
    step: float
    smallest: float
    blur: float

    @property
    def scales(self) -> Float64s:
        """The scales at which one picture is looked for in the other, the largest, 1, first."""
        return np.asarray(np.exp(-np.arange(0.0, -np.log(self.smallest) + 1e-9, self.step)))


#: Tells most pairs apart, ten times as fast as `FINE`.
COARSE: Final = Resolution(32, 0.06, 0.55, 1.5)
FINE: Final = Resolution(64, 0.03, 0.55, 2.5)

#: The matched part is cut into so many blocks each way; a watermark spoils some of them.
_BLOCKS: Final = 4
#: Of the blocks, sorted by how well they agree, the one that counts.
_QUANTILE: Final = 0.8
#: Energy that a block needs, as a share of the mean, before its agreement means more than noise.
_FLOOR: Final = 0.05
_LEAST_ENERGY: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture in which others are looked for.

    Attributes:
        shape: (height, width) in pixels.
        pixels: (side, side), the picture without light and shade in its upper left corner.
        spectrum: FFT of ``pixels``.
        energy: (side + 1, side + 1), sums of the squares of all pixels above and to the left.
    """

    shape: tuple[int, int]
    pixels: Float32s
    spectrum: npt.NDArray[np.complexfloating]
    energy: Float64s

    @classmethod
    def of(cls, small: Pixels, resolution: Resolution) -> Scene:
        """Prepare a grey picture (h, w)."""
        from scipy import fft

        side, detail = resolution.side, _detail(small, resolution, 1.0)
        pixels = np.zeros((side, side), dtype=np.float32)
        pixels[: detail.shape[0], : detail.shape[1]] = detail
        energy = np.zeros((side + 1, side + 1))
        energy[1:, 1:] = np.square(pixels, dtype=np.float64).cumsum(0).cumsum(1)
        return cls((detail.shape[0], detail.shape[1]), pixels, fft.rfft2(pixels), energy)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A picture that is looked for in others, at S scales, as it is and mirrored.

    Attributes:
        shapes: S (height, width) in pixels.
        pixels: (S, 2, side, side), each in the upper left corner.
        spectrum: complex conjugate of their FFT.
        energy: (S,), sums of their squares.
    """

    shapes: tuple[tuple[int, int], ...]
    pixels: Float32s
    spectrum: npt.NDArray[np.complexfloating]
    energy: Float64s

    @classmethod
    def of(cls, small: Pixels, resolution: Resolution) -> Pattern:
        """Prepare a grey picture (h, w)."""
        from scipy import fft

        details = [_detail(small, resolution, scale) for scale in resolution.scales]
        pixels = np.zeros((len(details), 2, resolution.side, resolution.side), dtype=np.float32)
        for place, detail in enumerate(details):
            height, width = detail.shape
            pixels[place, 0, :height, :width] = detail
            pixels[place, 1, :height, :width] = detail[:, ::-1]
        energy = np.array([float(np.square(detail).sum()) for detail in details])
        shapes = tuple((detail.shape[0], detail.shape[1]) for detail in details)
        return cls(shapes, pixels, np.conj(fft.rfft2(pixels)), energy)


def _detail(small: Pixels, resolution: Resolution, scale: float) -> Float32s:
    """Return a picture at a scale, without broad light and shade."""
    from scipy.ndimage import gaussian_filter

    ratio = resolution.side * scale / max(small.shape)
    size = max(round(small.shape[1] * ratio), 1), max(round(small.shape[0] * ratio), 1)
    sized = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    return np.asarray(sized - gaussian_filter(sized, resolution.blur, mode="nearest"), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Match:
    """Where a pattern agrees best with a scene.

    Attributes:
        score: normalised cross-correlation there, -1..1.
        scale: number of the scale.
        mirrored: 1 if the pattern was mirrored, else 0.
        top: pixels from the upper end of the scene.
        left: pixels from its left end.
    """

    score: float
    scale: int
    mirrored: int
    top: int
    left: int


def best_match(pattern: Pattern, scenes: Sequence[Scene]) -> list[Match]:
    """Return the best match of a pattern in each of some scenes of the same resolution, at least one."""
    from scipy import fft

    side = len(scenes[0].pixels)
    spectra = np.stack([scene.spectrum for scene in scenes])
    energies = np.stack([scene.energy for scene in scenes])
    shapes = np.array([scene.shape for scene in scenes])
    best = [Match(-1.0, 0, 0, 0, 0)] * len(scenes)
    # A pattern is never larger than the square, so at the places that count the FFT does not wrap around.
    overlap = fft.irfft2(spectra[:, None, None] * pattern.spectrum[None], s=(side, side))
    for scale, shape in enumerate(pattern.shapes):
        agreement = _agreement(overlap[:, scale], energies, pattern.energy[scale], shape)
        agreement[np.repeat(_sticks_out(shapes, shape, side)[:, None], 2, axis=1)] = -1.0
        flat = agreement.reshape(len(scenes), -1)
        for number, place in enumerate(flat.argmax(1)):
            if flat[number, place] > best[number].score:
                where = (int(i) for i in np.unravel_index(place, agreement.shape[1:]))
                best[number] = Match(min(float(flat[number, place]), 1.0), scale, *where)
    return best


def _agreement(overlap: Floats, energies: Float64s, energy: float, shape: tuple[int, int]) -> Floats:
    """Return the normalised cross-correlation at every place, (scenes, 2, places down, places across)."""
    height, width = shape
    under = energies[:, height:, width:] - energies[:, :-height, width:]
    under = under - energies[:, height:, :-width] + energies[:, :-height, :-width]
    # A flat part of a scene agrees with everything by chance; it counts as if it had some detail.
    least = _LEAST_ENERGY * energies[:, -1:, -1:] + 1e-6
    norm = np.sqrt(np.maximum(under, least) * max(energy, 1e-6))
    inverse = (1.0 / norm).astype(np.float32)[:, None]
    return np.asarray(overlap[:, :, : under.shape[1], : under.shape[2]] * inverse)


def _sticks_out(shapes: npt.NDArray[np.int64], shape: tuple[int, int], side: int) -> Bools:
    """Return the places at which a pattern would not lie wholly on a scene, (scenes, down, across)."""
    down, across = np.arange(side - shape[0] + 1), np.arange(side - shape[1] + 1)
    low = down[None, :, None] > (shapes[:, 0] - shape[0])[:, None, None]
    right = across[None, None, :] > (shapes[:, 1] - shape[1])[:, None, None]
    return np.asarray(low | right)


def coarse_scores(small: Pixels, scenes: Sequence[Scene]) -> Float64s:
    """Return how well a picture agrees with some place of each of the scenes, made with `COARSE`, -1..1."""
    return np.array([match.score for match in best_match(Pattern.of(small, COARSE), scenes)])


def copy_score(first: Pixels, second: Pixels) -> float:
    """Return how much two pictures are one, 0..1, whichever is a part of the other.

    The mean of the correlation of the whole match and of its blocks' upper part, so that a watermark in some
    blocks does not hide a copy, nor a common horizon make one.
    """
    found = []
    for small, other in ((first, second), (second, first)):
        pattern, scene = Pattern.of(small, FINE), Scene.of(other, FINE)
        (match,) = best_match(pattern, [scene])
        found.append((match.score, pattern, scene, match))
    score, pattern, scene, match = max(found, key=lambda one: one[0])
    return max((score + _blockwise(pattern, scene, match)) / 2, 0.0)


def _blockwise(pattern: Pattern, scene: Scene, match: Match) -> float:
    height, width = pattern.shapes[match.scale]
    laid = pattern.pixels[match.scale, match.mirrored, :height, :width]
    under = scene.pixels[match.top : match.top + height, match.left : match.left + width]
    floor = _FLOOR * float(np.sqrt((laid**2).mean() * (under**2).mean()))
    scores = []
    for rows in np.array_split(np.arange(height), min(_BLOCKS, height)):
        for columns in np.array_split(np.arange(width), min(_BLOCKS, width)):
            a, b = laid[np.ix_(rows, columns)], under[np.ix_(rows, columns)]
            norm = float(np.sqrt((a * a).mean() * (b * b).mean())) + floor
            scores.append(float((a * b).mean()) / max(norm, 1e-9))
    return float(np.quantile(scores, _QUANTILE, method="nearest"))
