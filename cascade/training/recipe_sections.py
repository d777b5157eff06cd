"""The sections of a recipe, with the reason for every default."""

from __future__ import annotations

from dataclasses import dataclass, field

from cascade.errors import RecipeError

__all__ = ["Augmentation", "Backbone", "Schedule", "Teacher"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """The network.

    Attributes:
        name: any timm model.
        weights: ``package:NAME`` takes a weights file that comes inside an installed Python package,
            ``timm`` lets timm fetch its own, ``file:PATH`` loads a state dict, ``none`` starts from
            random numbers, ``stage:general`` starts an expert from the trained general model, ``bundle:PATH``
            from the general model of a finished bundle and ``bundle:default`` from that of the shipped one.
    """

    name: str = "tf_efficientnet_lite0"
    weights: str = "timm"

    def __post_init__(self) -> None:
        kind, _, rest = self.weights.partition(":")
        if not (
            self.weights in ("timm", "none") or (kind in ("package", "file", "stage", "bundle") and rest)
        ):
            raise RecipeError(
                f"backbone.weights is {self.weights!r}; use 'timm', 'none', 'package:NAME', 'file:PATH', "
                "'bundle:PATH' or 'stage:general'"
            )


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How a training photo is varied. Probabilities and ranges.

    Labels come from few sources each, so blur, JPEG quality or size could be learned instead of the
    scene: every photo is therefore also shown small, re-compressed and grey.
    """

    views: int = 8  # cached variants of every photo; an epoch takes one of them
    min_area: float = 0.35  # smallest crop, as a share of the photo
    max_aspect: float = 1.6  # the whole photo is squashed when predicting, so shapes must vary
    flip: float = 0.5
    downscale: float = 0.5  # shown at a lower resolution, as a thumbnail site would serve it
    min_side: int = 80  # ... of this many pixels on the shorter side
    max_side: int = 512  # ... up to this many
    jpeg: float = 0.5  # re-compressed at a random quality, at that size
    min_quality: int = 25
    grey: float = 0.12
    rotate: float = 0.2  # turned by up to 10 degrees: a hand-held camera
    jitter: float = 0.3  # strength of brightness, contrast and saturation changes

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 1000:
            raise RecipeError(f"augment.views is {self.views}, not in 1..1000")
        for name in ("min_area", "flip", "downscale", "jpeg", "grey", "rotate", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"augment.{name} is {getattr(self, name)}, not in 0..1")
        if not 8 <= self.min_side <= self.max_side:
            raise RecipeError(
                f"augment.min_side is {self.min_side}; it must be at least 8 and at most max_side, "
                f"{self.max_side}"
            )
        if not 1 <= self.min_quality <= 95:
            raise RecipeError(f"augment.min_quality is {self.min_quality}, not in 1..95")


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is trained, for how long and how."""

    train_from: str = "blocks.3"  # first trained block; "head" = classifier only, "" = everything
    epochs: int = 16
    batch_size: int = 64
    learning_rate: float = 1e-3  # AdamW, peak, of the classifier
    backbone_factor: float = 0.5  # learning rate of the pretrained blocks, relative to the classifier's
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    restart_at: int = (
        0  # after so many epochs the rate rises once more: SGDR, Loshchilov and Hutter 2017; 0 = never
    )
    restart_factor: float = 0.5  # ... to this share of its first peak
    layer_decay: float = 1.0  # every block learns this much more slowly than the one after it
    loss: str = "cross_entropy"  # or "focal", or the dotted name of your own, see cascade.training.losses
    focal_gamma: float = 2.0
    label_smoothing: float = 0.1  # web labels are wrong now and then
    balance: str = "none"  # "weights": rare labels weigh more; "sampling": they are shown more often
    label_balance: float = 1.0  # with "sampling": 1 shows every label equally often, 0 as often as it occurs
    source_balance: float = 0.0  # with "sampling": likewise for the sources of the photos
    emphasis: dict[str, float] = field(default_factory=dict)  # ... and a source this much more often
    contrasts: str = "all"  # "within_source": see `cascade.training.data.contrasts`
    head_epochs: float = 0.0  # only the classifier learns: LP-FT, Kumar et al. 2022, arXiv 2202.10054
    mixup: float = 0.2  # alpha of mixup, 0 = off; mixed where the frozen part ends
    cutmix: float = 0.0  # alpha of cutmix, 0 = off; with both, a batch gets one or the other
    dropout: float = 0.2
    ema_decay: float = 0.998  # of averaged weights; they are exported unless the last ones are better
    early_stopping: int = 0  # stop after so many epochs without progress; 0 = never
    development: float = 0.1  # share of `train` that is not learned from but decides what is exported
    share: float = 1.0  # of the training photos that are used, for learning curves
    negatives: float = 0.0  # experts: photos of other groups per photo of its own
    outliers: float = 0.0  # photos that are none of the labels, per photo of a batch, from `restart_at` on
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise RecipeError(f"train.{name} is {getattr(self, name)}, below 1")
        if not self.learning_rate > 0:
            raise RecipeError(f"train.learning_rate is {self.learning_rate}, not above 0")
        if not 0 <= self.ema_decay < 1:
            raise RecipeError(f"train.ema_decay is {self.ema_decay}, not in 0..1")
        if self.balance not in ("none", "weights", "sampling"):
            raise RecipeError(f"train.balance is {self.balance!r}; use 'none', 'weights' or 'sampling'")
        if self.contrasts not in ("all", "within_source"):
            raise RecipeError(f"train.contrasts is {self.contrasts!r}; use 'all' or 'within_source'")
        if self.early_stopping < 0:
            raise RecipeError(f"train.early_stopping is {self.early_stopping}, below 0")
        for name, low, high in (
            ("layer_decay", 0.0, 1.0),
            ("share", 0.0, 1.0),
            ("restart_factor", 0.0, 1.0),
            ("development", 0.0, 0.5),
        ):
            if not low < getattr(self, name) <= high:
                raise RecipeError(f"train.{name} is {getattr(self, name)}, not above {low} and up to {high}")
        for name in (
            "mixup",
            "cutmix",
            "focal_gamma",
            "warmup_epochs",
            "head_epochs",
            "weight_decay",
            "negatives",
            "outliers",
            "restart_at",
        ):
            if getattr(self, name) < 0:
                raise RecipeError(f"train.{name} is {getattr(self, name)}, below 0")
        for name in ("label_balance", "source_balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"train.{name} is {getattr(self, name)}, not in 0..1")
        for name in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"train.{name} is {getattr(self, name)}, not in 0..1")


@dataclass(frozen=True, slots=True)
class Teacher:
    """Second opinions on the labels, mixed into what a network is asked to learn.

    Attributes:
        share: of the target that is the teacher's opinion; the rest is the label. 0 = no teacher.
        backbones: names of timm models whose frozen features it sees, all of them together.
        weights: of each, as in `Backbone`.
        sides: pixels of the (square) input of each.
        folds: every photo is judged by a teacher that was fitted on the other folds.
        strength: inverse of the L2 penalty of the logistic regression that is the teacher.
    """

    share: float = 0.0
    backbones: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    sides: tuple[int, ...] = ()
    folds: int = 5
    strength: float = 0.001

    def __post_init__(self) -> None:
        for name in ("backbones", "weights", "sides"):  # TOML gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 <= self.share <= 1:
            raise RecipeError(f"teacher.share is {self.share}, not in 0..1")
        if self.share and not self.backbones:
            raise RecipeError("teacher.share is above 0, but teacher.backbones names none")
        if not len(self.backbones) == len(self.weights) == len(self.sides):
            raise RecipeError("teacher: backbones, weights and sides must be equally many")
        if self.folds < 2:
            raise RecipeError(f"teacher.folds is {self.folds}, below 2")
        if not self.strength > 0:
            raise RecipeError(f"teacher.strength is {self.strength}, not above 0")
        for weights in self.weights:
            Backbone("", weights)
