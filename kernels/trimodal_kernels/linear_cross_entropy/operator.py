"""`trimodal::linear_cross_entropy`: the loss, and the gradients that backward scales.

loss, grad_h_KD, grad_weight_VD = linear_cross_entropy(h_KD, weight_VD, target_K, 0.1, 0.0, ...)
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trimodal_kernels.dispatch import chosen
from trimodal_kernels.linear_cross_entropy import cpu
from trimodal_kernels.linear_cross_entropy.chunked import chunked


@torch.library.custom_op("trimodal::linear_cross_entropy", mutates_args=())
def linear_cross_entropy(
    h_KD: Tensor,
    weight_VD: Tensor,
    target_K: Tensor,
    label_smoothing: float,
    z_loss: float,
    sum_in_fp32: bool,
    grades_h: bool,
    grades_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `chunked`."""
    path: Any = cpu
    if chosen(h_KD.device) == "triton":
        from trimodal_kernels.linear_cross_entropy import kernels as path
    return chunked(
        path.softmax_,
        path.rows_at_once(len(weight_VD)),
        h_KD,
        weight_VD,
        target_K,
        label_smoothing,
        z_loss,
        sum_in_fp32,
        grades_h,
        grades_weight,
    )


@linear_cross_entropy.register_fake
def _(
    h_KD: Tensor,
    weight_VD: Tensor,
    target_K: Tensor,
    label_smoothing: float,
    z_loss: float,
    sum_in_fp32: bool,
    grades_h: bool,
    grades_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.promote_types(h_KD.dtype, torch.float32)
    size, width = h_KD.shape
    grad_h_KD = h_KD.new_empty(size if grades_h else 0, width)
    grad_weight_VD = weight_VD.new_empty(len(weight_VD) if grades_weight else 0, width)
    return h_KD.new_empty((), dtype=exact), grad_h_KD, grad_weight_VD


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, grad_h_KD, grad_weight_VD = output
    ctx.mark_non_differentiable(grad_h_KD, grad_weight_VD)
    ctx.save_for_backward(grad_h_KD, grad_weight_VD)
    ctx.wanted = inputs[-2:]


@once_differentiable
def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    pairs = zip(ctx.wanted, ctx.saved_tensors, strict=True)
    scaled = (grad.to(x.dtype) * x if wanted else None for wanted, x in pairs)
    return *scaled, *(None,) * 6


linear_cross_entropy.register_autograd(_backward, setup_context=_setup)
