"""AdamW or Muon without decay on norms and biases, and warm-up followed by a cosine.

optimizer = build_optimizer(model, config.training)
set_rate(optimizer, learning_rate(step, config.training))
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trimodal.config import TrainingConfig
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel
from trimodal.training.components import depths, place, rate_scale
from trimodal.training.muon import MuonWithAdamW
from trimodal.training.sharding import is_sharded


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) over `parameter_groups`, or Muon within the blocks.

    Raises:
        ConfigError: Muon, which needs whole matrices, for parameters that are spread over ranks.
    """
    groups = parameter_groups(model, config.weight_decay, scales(model, config))
    if config.optimizer == "muon":
        if is_sharded(model):
            raise ConfigError("training.optimizer: muon cannot be used with FSDP, adamw can")
        return MuonWithAdamW(*split(model, groups), config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8)


def split(
    model: nn.Module, groups: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups of the matrices within blocks, and those of all else."""
    named = model.named_parameters()
    hidden = {id(p) for name, p in named if ".blocks." in name and p.ndim == 2}
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for group in groups:
        for inside, chosen in found.items():
            parameters = [p for p in group["params"] if (id(p) in hidden) is inside]
            if parameters:
                chosen.append({**group, "params": parameters})
    return found[True], found[False]


def scales(model: nn.Module, config: TrainingConfig) -> Callable[[str], float]:
    """The factor of the learning rate of each parameter by its name; other models have no parts."""
    if not isinstance(model, TrimodalModel):
        return lambda _: 1.0
    blocks = depths(model)
    return lambda name: rate_scale(place(name, blocks), config)


def parameter_groups(
    model: nn.Module, weight_decay: float, scale: Callable[[str], float] = lambda _: 1.0
) -> list[dict[str, Any]]:
    """What is trained; parameters of fewer than two dimensions, norms and biases, do not decay.

    Args:
        model: whose parameters that have gradients are taken.
        weight_decay: of the others.
        scale: by name, the factor of the learning rate; those of one factor are one group.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((decay, scale(name)), []).append(parameter)
    return [
        {"params": found, "weight_decay": decay, "scale": factor}
        for (decay, factor), found in groups.items()
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next update have a learning rate, scaled in each group as it is configured."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of a step counted from 0: linear warm-up, then half a cosine to the minimum."""
    peak, low = config.learning_rate, config.min_learning_rate
    warmup = min(config.warmup_steps, config.max_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2
