"""Training one network. In: a recipe, photos, a working folder. Out: the network with averaged weights.

Reads top to bottom: which photos an epoch takes, the loop, the checkpoint. A run that was stopped goes on
after the last finished epoch and ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cascade.dataset import Dataset
from cascade.training.backbone import Network, build
from cascade.training.recipe import Recipe
from cascade.training.report import Report
from cascade.training.views import Views, cache_views

__all__ = ["Fitted", "fit", "target_of"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network and its training curve: one dictionary of metrics per epoch."""

    network: Network
    history: tuple[dict[str, float], ...]


def target_of(recipe: Recipe, label: str) -> int:
    """Return the index of the logit for a label; an expert's last one for a label that is not its own."""
    labels = list(recipe.labels)
    return labels.index(label) if label in recipe.labels else len(labels)


def fit(recipe: Recipe, data: Dataset, work: Path, *, device: torch.device, report: Report) -> Fitted:
    """Train the network of a recipe on the split `train`, or go on where an earlier run stopped.

    The split `calibration` is looked at after every epoch and shown, but decides nothing.

    Args:
        recipe: what to train.
        data: labelled photos, of all labels that the bundle knows.
        work: folder for the cache and the checkpoints.
        device: where to train.
        report: is told about progress and metrics.
    """
    torch.manual_seed(recipe.train.seed)
    network = build(recipe)
    training, monitor = data.split("train"), data.split("calibration")
    checkpoint = Checkpoint(work / recipe.name / "checkpoint.pt", recipe, data)
    targets = np.array([target_of(recipe, photo.label) for photo in training])
    monitor_targets = torch.tensor([target_of(recipe, photo.label) for photo in monitor])

    model = nn.ModuleDict({"trained": network.trained, "head": network.head})
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.train.ema_decay))
    plan = recipe.train
    own = int((targets < len(recipe.labels)).sum())
    per_epoch = own + min(round(own * plan.negatives), len(targets) - own)
    steps = per_epoch // plan.batch_size
    optimizer = torch.optim.AdamW(_groups(network, recipe), weight_decay=plan.weight_decay)
    history: list[dict[str, float]] = checkpoint.restore(model, ema, optimizer)
    if len(history) < plan.epochs:
        views = cache_views(
            recipe,
            network.frozen,
            training,
            monitor,
            work / "views",
            device=device,
            workers=2,
            progress=lambda what, done, total: report.step(recipe.name, what, done, total),
        )
        network.to(device).to(memory_format=torch.channels_last)
        ema.to(device)
        for epoch in range(len(history), plan.epochs):
            started = time.perf_counter()
            chosen = _photos_of_epoch(targets, recipe, epoch)
            metrics = _epoch(
                network,
                ema,
                optimizer,
                views,
                targets,
                chosen,
                recipe,
                epoch,
                steps,
                device,
                report,
            )
            metrics |= _look_at(network, ema, views.monitor, monitor_targets, recipe, device)
            metrics["seconds"] = round(time.perf_counter() - started, 1)
            history.append(metrics)
            checkpoint.save(model, ema, optimizer, history)
            report.epoch(recipe.name, epoch + 1, plan.epochs, metrics)
    averaged: Any = ema.module
    model.load_state_dict(averaged.state_dict())
    return Fitted(network.cpu().eval(), tuple(history))


def _groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """Pretrained blocks learn more slowly than the new classifier; biases and norms do not decay."""
    plan = recipe.train
    groups = []
    for module, rate in (
        (network.trained, plan.learning_rate * plan.backbone_factor),
        (network.head, plan.learning_rate),
    ):
        parameters = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": matrices, "lr": rate, "peak": rate})
        groups.append({"params": vectors, "lr": rate, "peak": rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _photos_of_epoch(targets: npt.NDArray[np.int64], recipe: Recipe, epoch: int) -> npt.NDArray[np.int64]:
    """Return shuffled indices: every photo of its own, and for an expert a fresh draw of the others."""
    rng = np.random.default_rng([recipe.train.seed, epoch])
    own = np.flatnonzero(targets < len(recipe.labels))
    foreign = np.flatnonzero(targets == len(recipe.labels))
    count = min(round(len(own) * recipe.train.negatives), len(foreign))
    drawn = rng.choice(foreign, size=count, replace=False) if count else foreign[:0]
    return rng.permutation(np.concatenate([own, drawn]))


def _rate(step: int, warmup: float, total: int) -> float:
    """Linear warm-up, then cosine down to zero; a factor in 0..1."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def _epoch(
    network: Network,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    views: Views,
    targets: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
    recipe: Recipe,
    epoch: int,
    steps: int,
    device: torch.device,
    report: Report,
) -> dict[str, float]:
    plan, classes = recipe.train, recipe.outputs
    # Both libraries draw from global generators; seeded per epoch, so that a resumed run draws the same.
    torch.manual_seed(plan.seed * 100_003 + epoch)
    np.random.seed((plan.seed * 100_003 + epoch) % 2**32)
    mixup = Mixup(mixup_alpha=plan.mixup, label_smoothing=plan.label_smoothing, num_classes=classes)
    network.train()
    losses, correct = 0.0, 0
    model = nn.ModuleDict({"trained": network.trained, "head": network.head})
    for step in range(steps):
        rows = np.sort(chosen[step * plan.batch_size : (step + 1) * plan.batch_size])
        # Photos of one batch come from different views, so that every epoch mixes them anew.
        which = (rows + epoch) % len(views.training)
        features = np.stack([views.training[v][r] for v, r in zip(which, rows, strict=True)])
        x = torch.from_numpy(features).to(device).float()
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        y = torch.from_numpy(targets[rows]).to(device)
        if len(rows) % 2 == 0 and plan.mixup > 0:  # timm mixes pairs
            x, soft = mixup(x, y)
        else:
            soft = mixup_target(y, classes, 1.0, plan.label_smoothing)
        factor = _rate(epoch * steps + step, plan.warmup_epochs * steps, plan.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        logits = network.logits_of_features(x)  # (B, K)
        loss = nn.functional.cross_entropy(logits, soft)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 5.0)
        optimizer.step()
        ema.update_parameters(model)
        losses += float(loss.detach())
        # Of a mixed photo, the label that it is mostly made of counts.
        correct += int((logits.argmax(1) == soft.argmax(1)).sum())
        seen = (step + 1) * plan.batch_size
        what = f"epoch {epoch + 1} of {plan.epochs}"
        report.step(recipe.name, what, step + 1, steps, loss=losses / (step + 1), accuracy=correct / seen)
    return {"loss": losses / steps, "accuracy": correct / (steps * plan.batch_size)}


@torch.inference_mode()
def _look_at(
    network: Network,
    ema: AveragedModel,
    features: npt.NDArray[Any],
    targets: torch.Tensor,
    recipe: Recipe,
    device: torch.device,
) -> dict[str, float]:
    """Measure the averaged weights on photos that are not trained on."""
    ema.eval()
    averaged: Any = ema.module
    logits = torch.cat(
        [
            averaged["head"](
                averaged["trained"](torch.from_numpy(np.array(features[i : i + 128])).to(device).float())
            ).cpu()
            for i in range(0, len(features), 128)
        ]
    )
    mine = targets < len(recipe.labels)
    hit = logits.argmax(1) == targets
    metrics = {
        "monitor_loss": float(nn.functional.cross_entropy(logits, targets)),
        "monitor_accuracy": float(hit.float().mean()),
    }
    if recipe.kind == "expert":
        among = logits[:, :-1].argmax(1) == targets
        metrics["monitor_accuracy_own"] = float(among[mine].float().mean())
    return metrics


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
