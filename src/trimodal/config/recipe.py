"""How parts of a model are trained otherwise than the whole, and what is kept besides its weights.

config = TrainingConfig(frozen=("vision",), start_from={"vision": "runs/base/model"})
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from trimodal.errors import ConfigError
from trimodal.schema import Bounds, Count, Positive

Component = Literal["vision", "text", "speech", "trunk", "heads"]
"""A part of a model. An encoder is all up to the trunk and the embedding, that of text the table of
the vocabulary too; `heads` are what predicts ids, features, lengths and matching, and the scale of
the contrast."""
Rate = Annotated[float, Bounds(0, 1, above=True)]


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """An exponential moving average of the weights, which is what is validated and exported."""

    decay: Rate = 0.9999
    """Of the average in each update, at most (1 + n) / (10 + n) in the n-th, so that what a run
    begins with is forgotten."""

    def __post_init__(self) -> None:
        if self.decay == 1:
            raise ConfigError("decay: 1 would never leave the weights a run begins with")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What differs from part to part of a model."""

    ema: AverageConfig | None = None
    """Average the weights; what is validated, sampled and exported is then the average."""
    learning_rate_scale: Mapping[Component, Positive] = field(default_factory=dict)
    """By component, a factor of the learning rate."""
    layer_decay: Mapping[Component, Rate] = field(default_factory=dict)
    """By component, a factor of the rate of each layer to that of the layer above it."""
    frozen: tuple[Component, ...] = ()
    """Components that stay as they start: no gradients, no decay, nothing kept by the optimizer."""
    unlocked: Mapping[Component, Count] = field(default_factory=dict)
    """By frozen component, how many of its last layers are trained all the same. The last one is
    what follows the blocks, the one before it the last block."""
    start_from: Mapping[Component, str] = field(default_factory=dict)
    """By component, the model folder that its weights are taken from."""
    init_from: str | None = None
    """A model folder whose weights training starts from."""

    def __post_init__(self) -> None:
        if self.init_from is not None and self.start_from:
            raise ConfigError("training.start_from: init_from names a whole model already")
        started = {"vision", "text", "speech", "trunk", "heads"}
        if self.init_from is None:
            started = set(self.start_from)
        for name in self.frozen:
            if name not in started:
                raise ConfigError(
                    f"training.frozen: {name} would stay as random as it begins; name a model in "
                    f"start_from.{name} or init_from"
                )
        for name in self.unlocked:
            if name not in self.frozen:
                raise ConfigError(f"training.unlocked: {name} is not frozen, all of it is trained")
