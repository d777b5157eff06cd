"""Pictures that show no scene: packaged photographs, portraits, drawings, text, noise, blank frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

COUNT = 60
PACKAGED = {
    "skimage": [
        "astronaut.png",
        "brick.png",
        "cell.png",
        "chelsea.png",
        "chessboard_GRAY.png",
        "clock_motion.png",
        "coins.png",
        "color.png",
        "grass.png",
        "gravel.png",
        "horse.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "logo.png",
        "microaneurysms.png",
        "moon.png",
        "motorcycle_left.png",
        "page.png",
        "phantom.png",
        "retina.jpg",
        "rocket.jpg",
        "text.png",
    ],
    "sklearn": ["flower.jpg"],
}
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "have",
    "or",
    "by",
    "one",
    "had",
]


def packaged(rng: np.random.Generator) -> Iterator[Image.Image]:
    import skimage
    import sklearn

    homes = {
        "skimage": Path(skimage.__file__).parent / "data",
        "sklearn": Path(sklearn.__file__).parent / "datasets" / "images",
    }
    for package, names in PACKAGED.items():
        for name in names:
            with Image.open(homes[package] / name) as image:
                yield image.convert("RGB")


def faces(rng: np.random.Generator) -> Iterator[Image.Image]:
    import skimage

    for face in np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:100]:
        yield Image.fromarray((face * 255).astype(np.uint8)).resize((200, 200)).convert("RGB")


def shapes(rng: np.random.Generator) -> Iterator[Image.Image]:
    for _ in range(COUNT):
        image = Image.new("RGB", (400, 300), colour(rng))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 12))):
            x, y = rng.integers(0, 400, 2), rng.integers(0, 300, 2)
            box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
            kind = int(rng.integers(0, 4))
            if kind == 0:
                draw.rectangle(box, fill=colour(rng))
            elif kind == 1:
                draw.ellipse(box, fill=colour(rng), outline=colour(rng), width=3)
            elif kind == 2:
                draw.line(box, fill=colour(rng), width=int(rng.integers(1, 15)))
            else:
                corners = zip(rng.integers(0, 400, 5).tolist(), rng.integers(0, 300, 5).tolist(), strict=True)
                draw.polygon(list(corners), fill=colour(rng))
        yield image


def text(rng: np.random.Generator) -> Iterator[Image.Image]:
    for _ in range(COUNT):
        dark = rng.random() < 0.2
        image = Image.new("RGB", (420, 594), (30, 30, 35) if dark else (252, 251, 248))
        draw, size, y = ImageDraw.Draw(image), int(rng.integers(9, 22)), 30
        font = ImageFont.load_default(size)
        while y < 570:
            line = " ".join(rng.choice(WORDS, int(rng.integers(2, 14))))
            draw.text((30, y), line, fill=(220, 220, 220) if dark else (20, 20, 20), font=font)
            y += int(size * rng.choice([1.3, 1.3, 1.3, 2.6]))
        yield image


def noise(rng: np.random.Generator) -> Iterator[Image.Image]:
    for number in range(COUNT):
        grain = int(rng.integers(1, 40))
        shape = (300 // grain + 1, 400 // grain + 1, 3 if number % 2 else 1)
        values = rng.integers(0, 256, shape) if number % 3 else rng.normal(128, 40, shape)
        pixels = np.broadcast_to(np.clip(values, 0, 255).astype(np.uint8), (*shape[:2], 3))
        image = Image.fromarray(np.ascontiguousarray(pixels)).resize((400, 300), Image.Resampling.NEAREST)
        yield image.filter(ImageFilter.GaussianBlur(grain / 2)) if number % 4 == 0 else image


def blank(rng: np.random.Generator) -> Iterator[Image.Image]:
    for number in range(COUNT):
        one, other = np.array(colour(rng)), np.array(colour(rng))
        if number % 2:
            yield Image.new("RGB", (400, 300), tuple(one.tolist()))
        else:
            ramp = np.linspace(0, 1, 400)[None, :, None]
            pixels = np.broadcast_to(one + ramp * (other - one), (300, 400, 3)).astype(np.uint8)
            yield Image.fromarray(np.ascontiguousarray(pixels))


def colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(0, 256, 3))


KINDS: dict[str, Callable[[np.random.Generator], Iterator[Image.Image]]] = {
    "packaged": packaged,
    "faces": faces,
    "shapes": shapes,
    "text": text,
    "noise": noise,
    "blank": blank,
}
