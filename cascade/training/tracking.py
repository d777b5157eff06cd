"""Logs a training to Weights & Biases, if asked.

wandb is imported only when it is switched on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cascade.arrays import Floats, Ints
from cascade.errors import UsageError, needs_extra
from cascade.evaluation.dataset import Photo
from cascade.imaging.thumbnail import thumbnail

__all__ = ["WANDB_MODES", "Tracker", "choose_samples"]

WANDB_MODES: Final = ("disabled", "offline", "online")

#: Photos in the table of a network, half of them its most confident mistakes; pixels of each.
_SAMPLES: Final = 32
_SIDE: Final = 160


class Tracker:
    """One run; does nothing when the mode is ``"disabled"``.

    Args:
        mode: ``"offline"`` writes a run folder below the current one, ``"online"`` sends it to the account
            that wandb is logged in to.
        config: what the run records about itself.
        group: runs that belong together, e.g. those of a sweep.
        name: of the run; wandb invents one if None.

    Raises:
        UsageError: for an unknown mode.
    """

    def __init__(
        self,
        mode: str = "disabled",
        *,
        config: dict[str, Any] | None = None,
        group: str | None = None,
        name: str | None = None,
    ) -> None:
        if mode not in WANDB_MODES:
            raise UsageError(f"wandb mode {mode!r} is unknown; choose one of {', '.join(WANDB_MODES)}")
        self._settings: dict[str, Any] = {"mode": mode, "config": config or {}, "group": group, "name": name}
        self._run: Any = None

    @property
    def on(self) -> bool:
        """Whether a run is open; what is costly to prepare need not be if not."""
        return self._run is not None

    def start(self) -> None:
        """Open the run. Raises `MissingExtraError` when wandb is asked for and not installed."""
        if self._settings["mode"] == "disabled":
            return
        with needs_extra("--wandb", "train"):
            import wandb
        self._run = wandb.init(
            # wandb remembers the folder of a process's first run; ours is the current one.
            dir=os.environ.get("WANDB_DIR") or str(Path.cwd()),
            project="cascade",
            **self._settings,
        )

    def finish(self, *, failed: bool) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.finish(exit_code=1 if failed else 0)
            self._run = None

    def log(self, metrics: dict[str, Any]) -> None:
        """Record metrics."""
        if self._run is not None:
            self._run.log(metrics)

    def answers(
        self,
        stage: str,
        names: Sequence[str],
        photos: Sequence[Photo],
        truth: Ints,
        probabilities: Floats,
    ) -> None:
        """Record a confusion matrix and a table of sample predictions with their photos.

        Args:
            stage: whose answers they are.
            names: of the K columns.
            photos: N photos that were not learned from.
            truth: (N,), column of the right answer.
            probabilities: (N, K).
        """
        if self._run is None:
            return
        import wandb

        predicted = probabilities.argmax(1)
        table = wandb.Table(columns=["photo", "file", "label", "answer", "confidence", "right"])
        for i in choose_samples(truth, probabilities):
            image = thumbnail(photos[i].path, _SIDE)
            right = bool(predicted[i] == truth[i])
            confidence = float(probabilities[i, predicted[i]])
            row = (names[truth[i]], names[predicted[i]], round(confidence, 4), right)
            table.add_data(wandb.Image(image), photos[i].path.name, *row)
        matrix = wandb.plot.confusion_matrix(
            y_true=truth.tolist(),
            preds=predicted.tolist(),
            class_names=list(names),
            title=f"{stage}: calibration",
        )
        self._run.log({f"{stage}/confusion": matrix, f"{stage}/samples": table})

    def bundle(self, folder: Path, name: str, version: str, metadata: dict[str, Any]) -> None:
        """Record a finished bundle as an artifact of type ``model``."""
        if self._run is None:
            return
        import wandb

        safe = re.sub(r"[^\w.-]+", "-", name)  # what wandb allows
        artifact = wandb.Artifact(
            safe, type="model", metadata=metadata, description=f"bundle {name} {version}"
        )
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact, aliases=["latest", f"v{version}"])


def choose_samples(truth: Ints, probabilities: Floats) -> Ints:
    """Choose the most confident mistakes, and photos at even distances among the others."""
    wrong = np.flatnonzero(probabilities.argmax(1) != truth)
    worst = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][: _SAMPLES // 2]
    others = np.setdiff1d(np.arange(len(truth)), worst)
    count = min(_SAMPLES - len(worst), len(others))
    even = others[np.linspace(0, len(others) - 1, count).astype(np.int64)] if count else others[:0]
    return np.concatenate([worst, even])
