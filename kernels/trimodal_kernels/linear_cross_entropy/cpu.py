"""Losses and gradient of a few rows of logits on a CPU, in the memory of the logits.

softmax_(logits_RV, target_R, loss_R, label_smoothing, z_loss, grades=True)
"""

import torch
from torch import Tensor

NUMBERS = 1 << 22
"""Logits at once: beyond, memory that is written first costs more than longer products gain."""
LEAST_ROWS, MOST_ROWS = 128, 1024


def rows_at_once(num_outputs: int) -> int:
    """Rows of as many outputs that are computed at once."""
    return min(MOST_ROWS, max(LEAST_ROWS, NUMBERS // max(1, num_outputs)))


def softmax_(
    logits_RV: Tensor,
    target_R: Tensor,
    loss_R: Tensor,
    label_smoothing: float,
    z_loss: float,
    grades: bool,
) -> None:
    """See `Softmax`."""
    x_RV = logits_RV.to(loss_R.dtype)
    target_R1 = target_R[:, None]
    top_R1 = x_RV.amax(1, keepdim=True)
    x_RV.sub_(top_R1)
    expected_R1 = (1 - label_smoothing) * x_RV.gather(1, target_R1)
    if label_smoothing:
        expected_R1 += label_smoothing * x_RV.mean(1, keepdim=True)
    x_RV.exp_()
    total_R1 = x_RV.sum(1, keepdim=True)
    log_total_R1 = total_R1.log()
    loss_R1 = log_total_R1 - expected_R1
    if z_loss:
        log_total_R1 += top_R1
        loss_R1 += z_loss * log_total_R1.square()
    loss_R.copy_(loss_R1[:, 0])
    if not grades:
        return
    x_RV.mul_((1 + 2 * z_loss * log_total_R1) / total_R1)
    if label_smoothing:
        x_RV.sub_(label_smoothing / x_RV.shape[1])
    x_RV.scatter_add_(1, target_R1, torch.full_like(top_R1, label_smoothing - 1))
    if x_RV.dtype != logits_RV.dtype:
        logits_RV.copy_(x_RV)
