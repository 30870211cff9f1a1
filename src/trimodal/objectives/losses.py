"""Losses as pure functions of predictions and targets.

loss = masked_ids(logits_KV, target_K)
"""

import torch.nn.functional as F
from torch import Tensor


def masked_ids(logits_KV: Tensor, target_K: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of hidden ids, summed over the K positions.

    Where a position stands for C ids, logits (K, C, V) and targets (K, C), it is their mean.

    Args:
        logits_KV: of the ids of one range.
        target_K: which of them it is.
        smoothing: probability that is spread over all ids (Szegedy et al., 2016).
    """
    loss = F.cross_entropy(
        logits_KV.flatten(0, -2), target_K.flatten(), reduction="none", label_smoothing=smoothing
    )
    return loss.view(len(target_K), -1).mean(1).sum()


def gaussian_nll(answer_K2: Tensor, target_K: Tensor) -> Tensor:
    """Negative log-likelihood under (mean, log deviation), summed; constants are left out."""
    mean_K, log_deviation_K = answer_K2.unbind(-1)
    error_K = (target_K - mean_K) * (-log_deviation_K).exp()
    return (0.5 * error_K.square() + log_deviation_K).sum()


def masked_values(value_KP: Tensor, target_KP: Tensor) -> Tensor:
    """Squared error of hidden patches or frames, the mean over P summed over the K positions."""
    return (value_KP - target_KP).square().mean(1).sum()
