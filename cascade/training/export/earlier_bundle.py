"""Reads from a finished bundle what the bundle that is made from it takes over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade.bundle.manifest import Bundle

__all__ = ["recipe_facts", "training_facts", "whole"]


def whole(bundle: Bundle) -> Bundle:
    """Return the bundle if every graph is what its manifest says; raises `BundleError`."""
    for variant in bundle.variants:
        for stage in bundle.with_variant(variant).stages:
            bundle.check_hash(stage)
    return bundle


def recipe_facts(provenance: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """Return the words for the card and the seed of the general recipe."""
    general = provenance.get("recipes", {}).get("general", {})
    return dict(general.get("card", {})), int(general.get("train", {}).get("seed", 0))


def training_facts(folder: Path) -> dict[str, Any]:
    """Return what was measured while the networks learned."""
    try:
        return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["training"])
    except (OSError, KeyError, ValueError):
        return {}  # metrics.json is for people; a bundle is whole without it
