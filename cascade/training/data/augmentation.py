"""Draws random views of a training photo.

A view is a function of the photo and the seed alone, so the same seed gives the same view on any number
of workers. Sharpness and compression are drawn first and from one distribution for every photo, whatever
its source, so that neither tells the source.
"""

from __future__ import annotations

import io
import math
from typing import Final

import torch
from PIL import Image
from torchvision.transforms import v2

from cascade.imaging.preprocessing import INTERPOLATIONS, InputSpec
from cascade.training.recipe_sections import Augmentation

__all__ = ["random_view"]

_BEST_QUALITY: Final = 95


def random_view(image: Image.Image, spec: InputSpec, augment: Augmentation, seed: int) -> torch.Tensor:
    """Return one random view, uint8 of shape (3, spec.height, spec.width).

    Args:
        image: upright RGB.
        spec: input of the network that is trained.
        augment: what may happen to the photo.
        seed: decides what does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image = _lose_resolution(image, augment)
        return _transform(spec, augment)(image)


def _chance(p: float) -> bool:
    return bool(torch.rand(()) < p)


def _lose_resolution(image: Image.Image, augment: Augmentation) -> Image.Image:
    """Scale the photo down and compress it, as a thumbnail site would; the crop scales it up again."""
    short = min(image.size)
    if _chance(augment.downscale):
        # Uniform in the logarithm: halving from 400 to 200 is as likely as from 200 to 100. The range does
        # not depend on the photo, so that a large photo is not shown sharper than a small one.
        low, high = math.log(augment.min_side), math.log(augment.max_side)
        wanted = math.exp(low + (high - low) * float(torch.rand(())))
        how = ("bicubic", "bilinear", "lanczos")[int(torch.randint(3, ()))]
        if wanted < short:
            scale = wanted / short
            size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
            image = image.resize(size, INTERPOLATIONS[how], reducing_gap=2.0)
    if _chance(augment.jpeg):
        # At the reduced size: that is where a thumbnail site compresses, and where the blocks show.
        quality = int(torch.randint(augment.min_quality, _BEST_QUALITY + 1, ()))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        with Image.open(file) as compressed:
            image = compressed.convert("RGB")
    return image


def _transform(spec: InputSpec, augment: Augmentation) -> v2.Compose:
    steps: list[torch.nn.Module] = []
    if augment.rotate:
        turn = v2.RandomRotation(10, interpolation=v2.InterpolationMode.BILINEAR, fill=127)
        steps.append(v2.RandomApply([turn], p=augment.rotate))
    steps += [
        v2.RandomResizedCrop(
            (spec.height, spec.width),
            scale=(augment.min_area, 1.0),
            ratio=(1 / augment.max_aspect, augment.max_aspect),
            interpolation=v2.InterpolationMode.BICUBIC,
            antialias=True,
        ),
        v2.RandomHorizontalFlip(augment.flip),
        v2.PILToTensor(),
    ]
    if augment.jitter:
        strength = augment.jitter
        steps.append(v2.RandomApply([v2.ColorJitter(strength, strength, strength)], p=0.8))
    if augment.grey:
        steps.append(v2.RandomGrayscale(augment.grey))
    return v2.Compose(steps)
