"""AdamW without decay on norms and biases, and warm-up followed by a cosine.

optimizer = build_optimizer(model, config.training)
"""

import math
from typing import Any

import torch
from torch import nn

from trimodal.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over `parameter_groups`."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained; parameters of fewer than two dimensions, norms and biases, do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of a step counted from 0: linear warm-up, then half a cosine to the minimum."""
    peak, low = config.learning_rate, config.min_learning_rate
    warmup = min(config.warmup_steps, config.max_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2
