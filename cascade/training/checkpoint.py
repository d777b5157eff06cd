"""State after the last finished epoch. In: networks and optimizer. Out: one file, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.dataset import Dataset
from cascade.training.recipe import Recipe

__all__ = ["Checkpoint"]


class Checkpoint:
    """State after the last finished epoch; belongs to one recipe on one data set."""

    def __init__(self, path: Path, recipe: Recipe, data: Dataset) -> None:
        self.path = path
        self.identity = f"{recipe.fingerprint()} {data.fingerprint()}"

    def restore(
        self, model: nn.Module, ema: AveragedModel, optimizer: torch.optim.Optimizer
    ) -> list[dict[str, float]]:
        """Load the state, if there is one of the same recipe and data, and return the history."""
        if not self.path.is_file():
            return []
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["identity"] != self.identity:
            return []  # the recipe or the photos changed: train anew
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        history: list[dict[str, float]] = state["history"]
        return history

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
