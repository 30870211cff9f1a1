"""Linear layer and cross-entropy in plain torch, with K x V in memory.

loss = reference_linear_cross_entropy(h_KD, weight_VD, target_K)
"""

import torch
from torch import Tensor


def reference_linear_cross_entropy(
    h_KD: Tensor,
    weight_VD: Tensor,
    target_K: Tensor,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """See `linear_cross_entropy`."""
    logits_KV = h_KD @ weight_VD.to(h_KD.dtype).T
    logits_KV = logits_KV.to(torch.promote_types(logits_KV.dtype, torch.float32))
    log_total_K = logits_KV.logsumexp(1)
    right_K = logits_KV.gather(1, target_K[:, None])[:, 0]
    expected_K = (1 - label_smoothing) * right_K + label_smoothing * logits_KV.mean(1)
    return (log_total_K - expected_K + z_loss * log_total_K.square()).sum()
