"""One step of training. In: a network, its optimizer, a batch. Out: the same network, a little better."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.training.fit.backbone import Network
from cascade.training.fit.losses import make_loss
from cascade.training.recipe import Schedule

__all__ = ["Stepper"]


class Stepper:
    """Makes steps; what a run, a study of rates and an estimate of time have in common.

    Args:
        network: on the device where it is trained.
        ema: averages the weights of `trained` and `head`; None leaves that out.
        optimizer: its groups carry ``peak``, see `cascade.training.fit.optimizer.parameter_groups`.
        plan: names the loss.
        weights: float32 (K,), of the labels.

    Raises:
        RecipeError: when the loss cannot be had.
    """

    def __init__(
        self,
        network: Network,
        ema: AveragedModel | None,
        optimizer: torch.optim.Optimizer,
        plan: Schedule,
        weights: torch.Tensor,
    ) -> None:
        self.network, self.ema, self.optimizer, self.weights = network, ema, optimizer, weights
        self.loss_of = make_loss(plan)
        self.model = nn.ModuleDict({"trained": network.trained, "head": network.head})
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, x: torch.Tensor, soft: torch.Tensor, factor: float) -> tuple[float, torch.Tensor]:
        """Learn from features (B, ...) and soft targets (B, K) at ``factor`` times every group's peak rate.

        Returns the loss before the step, and the logits (B, K).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        logits = self.network.logits_of_features(x)
        loss = self.loss_of(logits, soft, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return float(loss.detach()), logits.detach()
