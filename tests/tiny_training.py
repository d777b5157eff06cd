"""Photos and recipes for tests that train: two colours, 32 px, a network that timm keeps for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60)}

GENERAL = """
name = "general"
kind = "general"
[labels]
red = "colour"
green = "colour"
[backbone]
name = "test_efficientnet"
weights = "none"
[input]
width = 32
height = 32
[augment]
views = 1
[train]
train_from = "blocks.4"
epochs = 2
batch_size = 8
learning_rate = 0.01
"""


def write_colours(folder: Path) -> Path:
    """Write {train,calibration,test}/{red,green}/N.png and return the folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("calibration", 4), ("test", 2)):
        for label, colour in COLOURS.items():
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 50, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


def write_recipe(folder: Path) -> Path:
    """Write general.toml and return the folder."""
    (folder / "general.toml").write_text(GENERAL)
    return folder
