"""A linear layer and cross-entropy over its outputs, which are never all written down.

loss = linear_cross_entropy(h_KD, table_VD[start:end], target_K, label_smoothing=0.1)
"""

import torch
from torch import Tensor

from trimodal_kernels.dispatch import chosen
from trimodal_kernels.linear_cross_entropy.operator import linear_cross_entropy as operator
from trimodal_kernels.linear_cross_entropy.reference import reference_linear_cross_entropy


def linear_cross_entropy(
    h_KD: Tensor,
    weight_VD: Tensor,
    target_K: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    sum_in_fp32: bool = True,
) -> Tensor:
    """The cross-entropy of K rows over V outputs h w^T, summed over the rows.

    The gradient is taken in the forward pass, a few rows at a time (Hsu et al., 2024), so there is
    no K x V tensor and no product is computed twice. It is that of the sum, which backward scales
    by one number; losses of single rows would each need their own. A second derivative there is
    not. Where nothing requires a gradient, none is taken.

    Args:
        h_KD: the rows that count, in the type in which products are computed; under autocast, in
            that of autocast.
        weight_VD: of the outputs, such as rows of a larger table; its gradient has its type.
        target_K: int64, which output is right; one outside V is an error on a CPU and gives NaN on
            a GPU.
        label_smoothing: probability that is spread over all outputs (Szegedy et al., 2016).
        z_loss: weight of the square of the logarithm of the softmax's denominator, which keeps it
            near 1 (Chowdhery et al., 2022).
        sum_in_fp32: whether the gradient of a 16-bit weight is summed over rows in fp32, and
            rounded once.

    Returns:
        A number, in fp32 at least.

    Raises:
        ValueError: shapes that do not fit together.
        IndexError: a target outside V, on a CPU.
    """
    if h_KD.dim() != 2 or weight_VD.dim() != 2 or h_KD.shape[1] != weight_VD.shape[1]:
        raise ValueError(f"rows {tuple(h_KD.shape)} for a weight {tuple(weight_VD.shape)}")
    if target_K.shape != h_KD.shape[:1]:
        raise ValueError(f"targets {tuple(target_K.shape)} for {h_KD.shape[0]} rows")
    h_KD = h_KD.to(product_type(h_KD))
    if chosen(h_KD.device) == "reference":
        return reference_linear_cross_entropy(h_KD, weight_VD, target_K, label_smoothing, z_loss)
    graded = torch.is_grad_enabled()
    loss, _, _ = operator(
        h_KD,
        weight_VD,
        target_K,
        label_smoothing,
        z_loss,
        sum_in_fp32,
        graded and h_KD.requires_grad,
        graded and weight_VD.requires_grad,
    )
    return loss


def product_type(x: Tensor) -> torch.dtype:
    """In which a linear layer of `x` is computed: its own, unless autocast says another."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)
