"""Losses as pure functions of embeddings and predictions.

loss_N = info_nce(a_NE, b_ME, positive_NM, column_M, scale)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    a_NE: Tensor, b_ME: Tensor, positive_NM: Tensor, column_M: Tensor, scale: Tensor
) -> Tensor:
    """Softmax contrast with several positives (van den Oord et al., 2018; Khosla et al., 2020).

    Args:
        a_NE: unit-norm queries.
        b_ME: unit-norm candidates.
        positive_NM: bool, which candidates belong to which query; a row may have several or none.
        column_M: bool, which candidates take part.
        scale: inverse temperature.

    Returns:
        (N,) the mean negative log-probability of each query's positives; 0 where it has none.
    """
    logits_NM = (scale * (a_NE @ b_ME.T)).masked_fill(~column_M, torch.finfo(a_NE.dtype).min)
    log_p_NM = logits_NM.log_softmax(dim=1)
    positive_NM = positive_NM & column_M
    count_N = positive_NM.sum(1)
    return -log_p_NM.where(positive_NM, 0.0).sum(1) / count_N.clamp_min(1)


def sigmoid_contrast(
    a_NE: Tensor,
    b_ME: Tensor,
    positive_NM: Tensor,
    column_M: Tensor,
    scale: Tensor,
    bias: Tensor,
) -> Tensor:
    """Pairwise sigmoid contrast (Zhai et al., 2023); arguments as in `info_nce`.

    Returns:
        (N,) the summed loss of each query's pairs.
    """
    logits_NM = scale * (a_NE @ b_ME.T) + bias
    signed_NM = torch.where(positive_NM, logits_NM, -logits_NM)
    return -F.logsigmoid(signed_NM).where(column_M, 0.0).sum(1)


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
