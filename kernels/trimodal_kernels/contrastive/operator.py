"""The losses as operators of torch, with gradients, for eager and compiled programs.

loss_N, loss_M, *_ = contrast(*pairs)
"""

from typing import Any

import torch
from torch import Tensor

from trimodal_kernels.contrastive import cpu, reference
from trimodal_kernels.contrastive.pairs import Gradients, Losses, Pairs, accumulator
from trimodal_kernels.dispatch import chosen


@torch.library.custom_op("trimodal::contrast", mutates_args=())
def contrast(
    a_NE: Tensor,
    b_ME: Tensor,
    id_N: Tensor,
    id_M: Tensor,
    count_N: Tensor,
    count_M: Tensor,
    row_N: Tensor | None,
    column_M: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`Losses` of `Pairs`."""
    pairs = Pairs(
        a_NE, b_ME, id_N, id_M, count_N, count_M, row_N, column_M, scale, bias, both
    )  # fmt: skip
    # products below are of the types that they are given, whatever surrounds them
    with torch.autocast(a_NE.device.type, enabled=False):
        loss_N, loss_M, state_2N, state_2M = _forward(pairs)
    return loss_N, loss_M, state_2N, state_2M


def _forward(pairs: Pairs) -> Losses:
    implementation = chosen(pairs.a_NE.device)
    if implementation == "reference":
        return reference.forward(pairs)
    if pairs.both and not pairs.whole:
        rows, columns = _forward(pairs.rows_only()), _forward(pairs.turned())
        return Losses(rows.loss_N, columns.loss_N, rows.state_2N, columns.state_2N)
    if implementation == "cpu":
        return cpu.forward(pairs)
    from trimodal_kernels.contrastive.forward import forward

    return forward(pairs)


@contrast.register_fake
def _(
    a_NE: Tensor,
    b_ME: Tensor,
    id_N: Tensor,
    id_M: Tensor,
    count_N: Tensor,
    count_M: Tensor,
    row_N: Tensor | None,
    column_M: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    exact, rows, columns = accumulator(a_NE.dtype), a_NE.shape[0], b_ME.shape[0]
    shapes = ((rows,), (columns if both else 0,), (2, rows), (2, columns))
    loss_N, loss_M, state_2N, state_2M = (a_NE.new_empty(shape, dtype=exact) for shape in shapes)
    return loss_N, loss_M, state_2N, state_2M


@torch.library.custom_op("trimodal::contrast_backward", mutates_args=())
def contrast_backward(
    grad_N: Tensor,
    grad_M: Tensor,
    state_2N: Tensor,
    state_2M: Tensor,
    a_NE: Tensor,
    b_ME: Tensor,
    id_N: Tensor,
    id_M: Tensor,
    count_N: Tensor,
    count_M: Tensor,
    row_N: Tensor | None,
    column_M: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`Gradients` of `Pairs`."""
    pairs = Pairs(
        a_NE, b_ME, id_N, id_M, count_N, count_M, row_N, column_M, scale, bias, both
    )  # fmt: skip
    with torch.autocast(a_NE.device.type, enabled=False):
        grad_NE, grad_ME, grad_scale, grad_bias = _backward(
            pairs, grad_N, grad_M, state_2N, state_2M
        )
    return grad_NE, grad_ME, grad_scale, grad_bias


def _backward(
    pairs: Pairs, grad_N: Tensor, grad_M: Tensor, state_2N: Tensor, state_2M: Tensor
) -> Gradients:
    implementation = chosen(pairs.a_NE.device)
    if implementation == "reference":
        return reference.backward(pairs, grad_N, grad_M)
    if pairs.both and not pairs.whole:
        rows = _backward(pairs.rows_only(), grad_N, grad_M, state_2N, state_2M)
        turned = _backward(pairs.turned(), grad_M, grad_N, state_2M, state_2N)
        turned = turned._replace(a_NE=turned.b_ME, b_ME=turned.a_NE)
        return Gradients(*(x + y for x, y in zip(rows, turned, strict=True)))
    if implementation == "cpu":
        return cpu.backward(pairs, grad_N, grad_M, state_2N, state_2M)
    from trimodal_kernels.contrastive.backward import backward

    return backward(pairs, grad_N, grad_M, state_2N, state_2M)


@contrast_backward.register_fake
def _(
    grad_N: Tensor,
    grad_M: Tensor,
    state_2N: Tensor,
    state_2M: Tensor,
    a_NE: Tensor,
    b_ME: Tensor,
    id_N: Tensor,
    id_M: Tensor,
    count_N: Tensor,
    count_M: Tensor,
    row_N: Tensor | None,
    column_M: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_NE, grad_ME = a_NE.new_empty(a_NE.shape), b_ME.new_empty(b_ME.shape)
    return grad_NE, grad_ME, torch.empty_like(scale), torch.empty_like(scale)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.both = inputs
    ctx.save_for_backward(*output[2:], *tensors)
    ctx.mark_non_differentiable(*output[2:])


def _differentiate(ctx: Any, grad_N: Tensor, grad_M: Tensor, *_: Any) -> tuple[Any, ...]:
    a_NE, b_ME, scale, bias = contrast_backward(grad_N, grad_M, *ctx.saved_tensors, ctx.both)
    bias = bias if ctx.needs_input_grad[9] else None
    return a_NE, b_ME, *[None] * 6, scale, bias, None


contrast.register_autograd(_differentiate, setup_context=_keep)
