"""The sections of a recipe, with the reason for every default."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from cascade.errors import CascadeError, RecipeError
from cascade.validated import NonNegative, Positive, Share, Validated

__all__ = ["Augmentation", "Backbone", "Schedule", "Section", "Teacher"]

_Weights = Annotated[str, msgspec.Meta(pattern="^(timm|none|(package|file|stage|bundle):.+)$")]
_Whole = Annotated[int, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Views = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Balance = Literal["none", "weights", "sampling"]
_Contrasts = Literal["all", "within_source"]
#: Shares: without 1, without 0, and up to a half.
_Below1 = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Above0 = Annotated[float, msgspec.Meta(gt=0, le=1)]
_AtMostHalf = Annotated[float, msgspec.Meta(gt=0, le=0.5)]


class Section(Validated, frozen=True, forbid_unknown_fields=True):
    """A part of a recipe; raises `RecipeError` for a value of the wrong type or outside its range."""

    error_type: ClassVar[type[CascadeError]] = RecipeError


class Backbone(Section, frozen=True):
    """The network.

    Attributes:
        name: any timm model.
        weights: ``package:NAME`` takes a weights file that comes inside an installed Python package,
            ``timm`` lets timm fetch its own, ``file:PATH`` loads a state dict, ``none`` starts from
            random numbers, ``stage:general`` starts an expert from the trained general model, ``bundle:PATH``
            from the general model of a finished bundle and ``bundle:default`` from that of the shipped one.
    """

    name: str = "tf_efficientnet_lite0"
    weights: _Weights = "timm"


class Augmentation(Section, frozen=True):
    """How a training photo is varied. Probabilities and ranges.

    Labels come from few sources each, so blur, JPEG quality or size could be learned instead of the
    scene: every photo is therefore also shown small, re-compressed and grey.
    """

    views: _Views = 8  # cached variants of every photo; an epoch takes one of them
    min_area: Share = 0.35  # smallest crop, as a share of the photo
    max_aspect: float = 1.6  # the whole photo is squashed when predicting, so shapes must vary
    flip: Share = 0.5
    downscale: Share = 0.5  # shown at a lower resolution, as a thumbnail site would serve it
    min_side: Annotated[int, msgspec.Meta(ge=8)] = 80  # ... of this many pixels on the shorter side
    max_side: int = 512  # ... up to this many
    jpeg: Share = 0.5  # re-compressed at a random quality, at that size
    min_quality: Annotated[int, msgspec.Meta(ge=1, le=95)] = 25
    grey: Share = 0.12
    rotate: Share = 0.2  # turned by up to 10 degrees: a hand-held camera
    jitter: Share = 0.3  # strength of brightness, contrast and saturation changes

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_side > self.max_side:
            raise RecipeError(f"augment.min_side is {self.min_side}, above max_side, {self.max_side}")


class Schedule(Section, frozen=True):
    """What is trained, for how long and how."""

    train_from: str = "blocks.3"  # first trained block; "head" = classifier only, "" = everything
    epochs: _Count = 16
    batch_size: _Count = 64
    learning_rate: Positive = 1e-3  # AdamW, peak, of the classifier
    backbone_factor: float = 0.5  # learning rate of the pretrained blocks, relative to the classifier's
    weight_decay: NonNegative = 0.05
    warmup_epochs: NonNegative = 1.0
    restart_at: _Whole = 0  # the rate rises once more after so many epochs: SGDR, arXiv 1608.03983; 0 = never
    restart_factor: _Above0 = 0.5  # ... to this share of its first peak
    restart_share: _Above0 = 1.0  # of the last weights in those exported; the rest is from before the restart
    layer_decay: _Above0 = 1.0  # every block learns this much more slowly than the one after it
    loss: str = "cross_entropy"  # or "focal", or the dotted name of your own, see cascade.training.losses
    focal_gamma: NonNegative = 2.0
    label_smoothing: _Below1 = 0.1  # web labels are wrong now and then
    balance: _Balance = "none"  # "weights": rare labels weigh more; "sampling": they are shown more often
    label_balance: Share = 1.0  # with "sampling": 1 shows every label equally often, 0 as often as it occurs
    source_balance: Share = 0.0  # with "sampling": likewise for the sources of the photos
    emphasis: dict[str, float] = msgspec.field(default_factory=dict)  # ... and a source this much more often
    restart_teacher: _Below1 = 0.0  # of what is learned from then on: what the weights before it say
    contrasts: _Contrasts = "all"  # "within_source": see `cascade.training.data.contrasts`
    contrast_weight: _Below1 = 0.0  # ... and how much a label left out still counts, from `restart_at` on
    head_epochs: NonNegative = 0.0  # only the classifier learns: LP-FT, Kumar et al. 2022, arXiv 2202.10054
    mixup: NonNegative = 0.2  # alpha of mixup, 0 = off; mixed where the frozen part ends
    cutmix: NonNegative = 0.0  # alpha of cutmix, 0 = off; with both, a batch gets one or the other
    dropout: _Below1 = 0.2
    ema_decay: _Below1 = 0.998  # of averaged weights; they are exported unless the last ones are better
    early_stopping: _Whole = 0  # stop after so many epochs without progress; 0 = never
    development: _AtMostHalf = 0.1  # share of `train` that is not learned from but decides what is exported
    share: _Above0 = 1.0  # of the training photos that are used, for learning curves
    negatives: NonNegative = 0.0  # experts: photos of other groups per photo of its own
    outliers: NonNegative = 0.0  # photos that are none of the labels, per photo, from `restart_at` on
    seed: int = 0


class Teacher(Section, frozen=True):
    """Second opinions on the labels, mixed into what a network is asked to learn.

    Attributes:
        share: of the target that is the teacher's opinion; the rest is the label. 0 = no teacher.
        backbones: names of timm models whose frozen features it sees, all of them together.
        weights: of each, as in `Backbone`.
        sides: pixels of the (square) input of each.
        folds: every photo is judged by a teacher that was fitted on the other folds.
        strength: inverse of the L2 penalty of the logistic regression that is the teacher.
    """

    share: Share = 0.0
    backbones: tuple[str, ...] = ()
    weights: tuple[_Weights, ...] = ()
    sides: tuple[int, ...] = ()
    folds: Annotated[int, msgspec.Meta(ge=2)] = 5
    strength: Positive = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share and not self.backbones:
            raise RecipeError("teacher.share is above 0, but teacher.backbones names none")
        if not len(self.backbones) == len(self.weights) == len(self.sides):
            raise RecipeError("teacher: backbones, weights and sides must be equally many")
