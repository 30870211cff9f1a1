"""AdamW without decay on norms and biases, and warm-up followed by a cosine.

optimizer = build_optimizer(model, config.training)
"""

import math

import torch
from torch import nn

from trimodal.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019); parameters of fewer than two dimensions do not decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in named if p.ndim >= 2]
    kept = [p for _, p in named if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of a step counted from 0: linear warm-up, then half a cosine to the minimum."""
    peak, low = config.learning_rate, config.min_learning_rate
    warmup = min(config.warmup_steps, config.max_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2
