"""A recipe says how one image stage is trained; it is read from a TOML file and checked."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

from cascade.errors import BundleError, RecipeError
from cascade.imaging.preprocessing import InputSpec
from cascade.labels import LabelTree
from cascade.training.recipe_sections import Augmentation, Backbone, Schedule, Section, Teacher

__all__ = ["Recipe", "linked", "load_recipes", "read_toml"]


class Recipe(Section, frozen=True):
    """Everything that makes one image stage.

    Attributes:
        name: of the stage; becomes ``<name>.onnx``.
        kind: ``"general"`` or ``"expert"``.
        labels: label -> parent, in the order of the logits. An expert gets "not mine" as one more logit.
        card: of the general recipe, what the model card says in words: ``data``, ``licence``, ``limits``; and
            ``pairs``, "a b, c d": labels that evaluation reports on in pairs, confused or not.
        start: fingerprint of the recipe whose trained network this one starts from; filled in by `linked`.
    """

    name: str
    kind: Literal["general", "expert"]
    labels: Annotated[dict[str, str], msgspec.Meta(min_length=2)]
    description: str = ""
    backbone: Backbone = msgspec.field(default_factory=Backbone)
    input: InputSpec = msgspec.field(default_factory=lambda: InputSpec(224, 224))
    augment: Augmentation = msgspec.field(default_factory=Augmentation)
    train: Schedule = msgspec.field(default_factory=Schedule)
    teacher: Teacher = msgspec.field(default_factory=Teacher)
    card: dict[str, str] = msgspec.field(default_factory=dict)
    start: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.isidentifier() or self.name in ("router", "arbiter"):
            raise RecipeError(f"name {self.name!r} must be an identifier and not 'router' or 'arbiter'")
        if (self.kind == "general") != (self.name == "general"):
            raise RecipeError("the recipe of kind 'general' is named 'general', and no other is")
        if self.kind == "expert" and self.train.negatives <= 0:
            raise RecipeError("an expert needs train.negatives above 0, to learn what is not its own")

    @property
    def outputs(self) -> int:
        """Number of logits."""
        return len(self.labels) + (self.kind == "expert")

    def fingerprint(self) -> str:
        """Return 16 hex digits that change whenever the recipe changes in more than the card's words."""
        content = {key: value for key, value in self.to_dict().items() if key != "card"}
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read one recipe; raises `RecipeError` naming the file and the field."""
        try:
            return cls.from_dict(read_toml(path))
        except (RecipeError, BundleError) as error:
            text = str(error).removeprefix(f"{path}: ")
            raise RecipeError(f"{path}: {text}") from None


def linked(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Fill in `Recipe.start`, so that caches and checkpoints of an expert belong to what it starts from.

    Raises:
        RecipeError: when a recipe starts from one that is not the general one, or from itself.
    """
    general = recipes[0]
    for recipe in recipes:
        kind, _, name = recipe.backbone.weights.partition(":")
        if kind == "stage" and (name != general.name or recipe is general):
            raise RecipeError(
                f"{recipe.name}: backbone.weights is {recipe.backbone.weights!r}; only experts start from a "
                "stage, and only from 'stage:general'"
            )
    return tuple(
        recipe.replace(start=general.fingerprint())
        if recipe.backbone.weights.startswith("stage:")
        else recipe
        for recipe in recipes
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; raises `RecipeError` naming the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not TOML ({error})") from error


def load_recipes(paths: Iterable[Path]) -> tuple[Recipe, ...]:
    """Read recipes and check that they make one bundle: the general model first, then the experts.

    Args:
        paths: TOML files, or folders that hold them. Experts come in the order of their file names.

    Raises:
        RecipeError: when the general recipe is missing or doubled, or an expert knows other labels.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.toml")) if path.is_dir() else [path]
    recipes = [Recipe.load(file) for file in files]
    general = [r for r in recipes if r.kind == "general"]
    if len(general) != 1:
        raise RecipeError(
            f"exactly one recipe of kind 'general' is needed, found {len(general)} "
            f"among {', '.join(str(f) for f in files) or 'no files'}"
        )
    try:
        LabelTree(tuple(general[0].labels), general[0].labels)
    except BundleError as error:
        raise RecipeError(f"general: {error}") from None
    experts = [r for r in recipes if r.kind == "expert"]
    if len({r.name for r in experts}) != len(experts):
        raise RecipeError("two experts have the same name")
    for expert in experts:
        odd = [k for k, v in expert.labels.items() if general[0].labels.get(k) != v]
        if odd:
            raise RecipeError(
                f"expert {expert.name!r}: {', '.join(odd)} is not a label of the general recipe with "
                "the same parent"
            )
    return (general[0], *experts)
