"""docs/training.md: its examples parse, and every field and file that it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cascade.training.overrides import override
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Augmentation, Backbone, Schedule, Teacher

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
RECIPE = Recipe(name="general", kind="general", labels={"a": "x", "b": "x"})


def examples() -> list[dict]:
    return [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]


def test_examples_are_recipes() -> None:
    parts = [example for example in examples() if "parameters" not in example]
    assert len(parts) == 2
    for part in parts:
        settings = {f"{section}.{key}": v for section, found in part.items() for key, v in found.items()}
        assert override(RECIPE, settings) != RECIPE


def test_example_sweeps_are_sweeps(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra `train`")
    pytest.importorskip("torch", reason="needs the extra `train`")
    pytest.importorskip("timm", reason="needs the extra `train`")
    pytest.importorskip("onnxscript", reason="needs the extra `train`")
    from cascade.training.explore.sweep import Sweep

    texts = [t for t in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[parameters]" in t]
    paths = sorted((ROOT / "benchmarks" / "sweeps").glob("*.toml"))
    assert len(texts) == len(paths) == 2
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.toml")
        paths[-1].write_text(text)
    for path in paths:
        planned = Sweep.load(path).combinations()
        assert len(planned) in (6, 12)
        for settings in planned:
            override(RECIPE, settings)


def test_every_field_of_the_schedule_that_it_names_exists() -> None:
    sections = {"train": Schedule, "backbone": Backbone, "teacher": Teacher, "augment": Augmentation}
    named = re.findall(r"`(train|backbone|teacher|augment)\.(\w+)`", PAGE)
    assert len(named) > 15
    for section, name in named:
        assert name in sections[section].__struct_fields__, name
