"""The loop over rows that CPU and GPU share: logits, their gradient in place, products with it.

loss, grad_h_KD, grad_weight_VD = chunked(softmax_, rows, h_KD, weight_VD, target_K, ...)
"""

from collections.abc import Callable

import torch
from torch import Tensor

Softmax = Callable[[Tensor, Tensor, Tensor, float, float, bool], None]
"""Of logits (R, V), targets (R,), where the losses (R,) are to be written, label smoothing, z-loss,
and whether the logits are to become the gradient of the summed losses."""
ALIGNMENT = 16
"""Rows of logits begin at multiples of as many numbers, whatever V is."""


def chunked(
    softmax_: Softmax,
    rows: int,
    h_KD: Tensor,
    weight_VD: Tensor,
    target_K: Tensor,
    label_smoothing: float,
    z_loss: float,
    sum_in_fp32: bool,
    grades_h: bool,
    grades_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss and its gradients; one that is not wanted has no rows.

    Args:
        softmax_: losses and gradient of a few rows.
        rows: how many of them at once.
        h_KD: and what follows, see `linear_cross_entropy`.
        weight_VD: the weight.
        target_K: the targets.
        label_smoothing: as there.
        z_loss: as there.
        sum_in_fp32: as there.
        grades_h: whether the gradient of the rows is wanted.
        grades_weight: whether that of the weight is.
    """
    (size, width), num_outputs = h_KD.shape, len(weight_VD)
    product_VD = weight_VD.to(h_KD.dtype)
    exact = torch.promote_types(h_KD.dtype, torch.float32)
    loss_K = torch.empty(size, dtype=exact, device=h_KD.device)
    grad_h_KD = h_KD.new_empty(size if grades_h else 0, width)
    wide = torch.promote_types(weight_VD.dtype, torch.float32) if sum_in_fp32 else weight_VD.dtype
    grad_weight_VD: Tensor | None = None
    padded = -(-num_outputs // ALIGNMENT) * ALIGNMENT
    room = h_KD.new_empty(min(rows, size), padded)
    for start in range(0, size, rows):
        chunk = slice(start, min(start + rows, size))
        h_RD = h_KD[chunk]
        logits_RV = room[: len(h_RD), :num_outputs]
        torch.mm(h_RD, product_VD.T, out=logits_RV)
        softmax_(
            logits_RV,
            target_K[chunk],
            loss_K[chunk],
            label_smoothing,
            z_loss,
            grades_h or grades_weight,
        )
        if grades_h:
            torch.mm(logits_RV, product_VD, out=grad_h_KD[chunk])
        if grades_weight:
            grad_weight_VD = _added(grad_weight_VD, logits_RV.T, h_RD, wide)
    if grad_weight_VD is None:
        grad_weight_VD = weight_VD.new_zeros(num_outputs if grades_weight else 0, width)
    return loss_K.sum(), grad_h_KD, grad_weight_VD.to(weight_VD.dtype)


def _added(sum_VD: Tensor | None, a_VR: Tensor, b_RD: Tensor, dtype: torch.dtype) -> Tensor:
    """With a product added, which is not rounded to 16 bits first where the device can do that."""
    if a_VR.dtype == dtype:
        return a_VR @ b_RD if sum_VD is None else sum_VD.addmm_(a_VR, b_RD)
    if a_VR.is_cuda and dtype == torch.float32:
        product_VD = torch.mm(a_VR, b_RD, out_dtype=dtype)
    else:
        product_VD = (a_VR @ b_RD).to(dtype)
    return product_VD if sum_VD is None else sum_VD.add_(product_VD)
