"""Makes one step of training: forward, loss, backward, optimizer, averaged weights."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cascade.training.data.contrasts import weighted_contrasts
from cascade.training.data.outliers import OutlierBatch, spread_within_groups
from cascade.training.fit.backbone import Network
from cascade.training.fit.losses import cross_entropy, make_loss
from cascade.training.recipe_sections import Schedule

__all__ = ["Stepper"]

#: Weight of the loss of photos that are none of the labels (Hendrycks et al. 2019, section 4.3).
_OUTLIER_WEIGHT: Final = 0.5


class Stepper:
    """Makes steps; what a run, a study of rates and an estimate of time have in common.

    Args:
        network: on the device where it is trained.
        ema: averages the weights of `trained` and `head`; None leaves that out.
        optimizer: its groups carry ``peak``, see `cascade.training.fit.optimizer.parameter_groups`.
        plan: names the loss, the weight of contrasts and the share of a teacher.
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
        self.plan = plan
        self.restarted = False
        self.teacher: Any = None
        self.contrast_weight = 0.0 if plan.restart_at else plan.contrast_weight
        self.loss_of = make_loss(plan)
        self.model = nn.ModuleDict({"trained": network.trained, "head": network.head})
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def restart(self, teacher: nn.Module | None) -> None:
        """Learn from now on as the recipe says for the epochs from `restart_at` on.

        Args:
            teacher: a frozen model of ``trained`` and ``head``, which says a share of what is learned;
                None learns from labels alone.
        """
        self.restarted = True
        self.teacher, self.contrast_weight = teacher, self.plan.contrast_weight

    def __call__(
        self,
        x: torch.Tensor,
        soft: torch.Tensor,
        factor: float,
        *,
        excluded: torch.Tensor | None = None,
        head_only: bool = False,
        outliers: OutlierBatch | None = None,
    ) -> tuple[float, torch.Tensor]:
        """Learn from features (B, ...) and soft targets (B, K) at ``factor`` times every group's peak rate.

        Args:
            x: features, (B, ...).
            soft: targets, (B, K); 0 where excluded.
            factor: of every group's peak rate.
            excluded: bool (B, K), labels that are left out of a photo's softmax, or count less there.
            head_only: change the classifier and nothing else.
            outliers: photos that are none of the labels.

        Returns:
            The loss before the step, and the logits (B, K), those of excluded labels far below all others,
            or lowered by their weight.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        together = x if outliers is None else torch.cat([x, outliers.x])
        said, others = self.network.logits_of_features(together, head_only=head_only).tensor_split([len(x)])
        logits = said if excluded is None else weighted_contrasts(said, excluded, self.contrast_weight)
        loss = self.loss_of(logits, soft, self.weights)
        if self.teacher is not None:
            loss = loss + self.plan.restart_teacher * (self._distillation(x, said) - loss)
        if outliers is not None:
            others = weighted_contrasts(others, outliers.excluded)
            spread = spread_within_groups(others, outliers)
            loss = loss + _OUTLIER_WEIGHT * cross_entropy(others, spread, torch.ones_like(self.weights))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return float(loss.detach()), logits.detach()

    def _distillation(self, x: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy to what the teacher says of the same views, over all labels.

        Also over those that are excluded: the teacher did not learn them from the source either.
        """
        with torch.no_grad():
            asked = self.teacher["head"](self.teacher["trained"](x)).softmax(1)
        return cross_entropy(said, asked, torch.ones_like(self.weights))
