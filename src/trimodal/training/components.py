"""Which part and which layer of a model a parameter is in, and how that part is trained.

component, below = place("encoders.0.transformer.blocks.3.mlp.up_proj.weight", depths(model))
lock(model, config.training)
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

from torch import nn

from trimodal.batch import Modality
from trimodal.config import Component, TrainingConfig
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.models.layers import Block

ENTRIES = ("to_trunk", "summary")
"""Of an encoder what is the trunk's: a tower can be frozen, or taken from a model with another
trunk, and these are learnt."""
HEADS = ("prediction_head", "matching_head", "classifier", "logit_scale", "logit_bias")


class Place(NamedTuple):
    """Where a parameter stands."""

    component: Component
    below: int
    """Layers of the component above it; 0 for what follows the blocks."""


def depths(model: TrimodalModel) -> dict[Component, int]:
    """Blocks of each component."""
    architecture = model.architecture
    stacks = (architecture.vision, architecture.text, architecture.speech, architecture.trunk)
    names: tuple[Component, ...] = ("vision", "text", "speech", "trunk")
    return {name: stack.depth for name, stack in zip(names, stacks, strict=True)}


def place(name: str, blocks: Mapping[Component, int]) -> Place:
    """Where a parameter or buffer of a model stands, by its name; see `depths` for `blocks`.

    Layers are a frontend, or what else enters the trunk; each block; and what follows them.
    """
    first, *rest = name.split(".")
    if first in HEADS:
        return Place("heads", 0)
    component: Component = "trunk"
    is_entry = first.endswith("_embedding")
    if first == "encoders":
        if rest[1] in ENTRIES:
            is_entry = True
        else:
            component = cast(Component, Modality(int(rest[0])).name.lower())
            is_entry = rest[1] == "frontend"
    if "blocks" in rest:
        return Place(component, blocks[component] - int(rest[rest.index("blocks") + 1]))
    return Place(component, blocks[component] + 1 if is_entry else 0)


def rate_scale(place: Place, config: TrainingConfig) -> float:
    """The factor of the learning rate at a place (layer-wise decay of Clark et al., 2020)."""
    factor = config.learning_rate_scale.get(place.component, 1.0)
    return factor * config.layer_decay.get(place.component, 1.0) ** place.below


def lock(model: TrimodalModel, config: TrainingConfig) -> None:
    """Freeze what `training.frozen` names, but for its unlocked layers (Zhai et al., 2022).

    A frozen block drops nothing out, since it has nothing to learn from it.

    Raises:
        ConfigError: nothing is left to train.
    """
    blocks = depths(model)
    for name, parameter in model.named_parameters():
        component, below = place(name, blocks)
        if component in config.frozen and below >= config.unlocked.get(component, 0):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("training.frozen: nothing is left to train")
    for block in (module for module in model.modules() if isinstance(module, Block)):
        if not _is_trained(block):
            block.dropout = 0.0


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
