"""Saves and restores the state after the last finished epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.evaluation.dataset import Dataset, Photo
from cascade.training.recipe import Recipe

__all__ = ["Checkpoint"]


class Checkpoint:
    """State after the last finished epoch; belongs to one recipe on one data set.

    Args:
        path: of the file.
        recipe: that is trained.
        data: labelled photos.
        outliers: photos that are none of the labels.
    """

    def __init__(self, path: Path, recipe: Recipe, data: Dataset, outliers: Sequence[Photo] = ()) -> None:
        self.path = path
        self.identity = f"{recipe.fingerprint()} {data.fingerprint()}"
        if recipe.train.outliers and outliers:
            self.identity += f" {Dataset(data.folder, tuple(outliers), ()).fingerprint()}"

    def restore(
        self, model: nn.Module, ema: AveragedModel, optimizer: torch.optim.Optimizer
    ) -> list[dict[str, float]]:
        """Load the state, if there is one of the same recipe and data, and return the history."""
        state = self._read()
        if state is None:
            return []
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        history: list[dict[str, float]] = state["history"]
        return history

    def history(self) -> list[dict[str, float]]:
        """Return the metrics of the finished epochs."""
        state = self._read()
        return state["history"] if state else []

    def _read(self) -> dict[str, Any] | None:
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        # Of another recipe or other photos: train anew.
        return state if state["identity"] == self.identity else None

    def save(
        self,
        model: nn.Module,
        ema: AveragedModel,
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, float]],
    ) -> None:
        """Write the state so that a kill at any moment leaves the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                "identity": self.identity,
                "model": model.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
            },
            partial,
        )
        partial.replace(self.path)
