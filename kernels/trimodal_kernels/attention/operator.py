"""`trimodal::packed_attention` and its backward, as PyTorch knows them.

out_THK, lse_HT, kept = attention(q_THK, k_THK, v_THK, *extras, tables, sizes, "cpu", True, False)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trimodal_kernels.attention import dense
from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.attention.products import computed_in
from trimodal_kernels.blocks import Dense
from trimodal_kernels.tiles import Tiles

OPTIONAL = 6
"""Fields of `Extras` that are tensors; a gradient of one that is absent is an empty tensor."""


@torch.library.custom_op("trimodal::packed_attention", mutates_args=())
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    bias: Tensor | None,
    position: Tensor | None,
    eps: float,
    dropout: float,
    seed: int,
    tables: Sequence[Tensor],
    sizes: Sequence[int],
    way: str,
    keeps: bool,
    wants_lse: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The output (T, H, K), its log-sum-exp (H, T), and what the backward pass wants again.

    Queries, keys and values (T, H, K) are followed by the fields of `Extras`, then by the plan of
    the segments for the `way`, `cpu` or `triton`, see `Segments.plan`. It `keeps` something if a
    gradient will be asked for; `wants_lse` is for a CPU, which does not need it itself.
    """
    extras = Extras(q_weight, k_weight, cos, sin, bias, position, eps, dropout, seed)
    if way == "triton":
        from trimodal_kernels.attention.forward import forward

        out, lse = forward(q, k, v, Tiles.unpacked(tables, sizes), extras)
        return out, lse, []
    out, lse, kept = dense.forward(q, k, v, Dense.unpacked(tables, sizes), extras, keeps, wants_lse)
    # as the fake says, which compiled code goes by
    return out.contiguous(), lse.contiguous(), [x.contiguous() for x in kept]


@attention.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    q, (tables, sizes, way, keeps, wants_lse) = inputs[0], inputs[12:]
    exact = torch.promote_types(q.dtype, torch.float32)
    lse = q.new_empty((q.shape[1], q.shape[0]), dtype=exact)
    if way != "cpu":
        return q.new_empty(q.shape), lse, []
    kept = dense.kept_shapes(q, Dense.unpacked(tables, sizes)) if keeps else []
    dtype = computed_in(q)
    lse = lse if wants_lse else q.new_empty(0, dtype=exact)
    return q.new_empty(q.shape), lse, [q.new_empty(shape, dtype=dtype) for shape in kept]


@torch.library.custom_op("trimodal::packed_attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    bias: Tensor | None,
    position: Tensor | None,
    eps: float,
    dropout: float,
    seed: int,
    tables: Sequence[Tensor],
    sizes: Sequence[int],
    way: str,
    out: Tensor,
    lse: Tensor,
    kept: Sequence[Tensor],
) -> list[Tensor]:
    """The gradients in the order of `Gradients`, empty where there was no input."""
    extras = Extras(q_weight, k_weight, cos, sin, bias, position, eps, dropout, seed)
    if way == "triton":
        from trimodal_kernels.attention.backward import backward

        made = backward(grad, q, k, v, out, lse, Tiles.unpacked(tables, sizes), extras)
    else:
        made = dense.backward(grad, q, k, v, out, kept, Dense.unpacked(tables, sizes), extras)
    return [q.new_empty(0) if x is None else x.contiguous() for x in made]


@attention_backward.register_fake
def _(*inputs: Any) -> list[Tensor]:
    q, k, v, q_weight, k_weight, _, _, bias = inputs[1:9]
    return [
        q.new_empty(0) if x is None else x.new_empty(x.shape)
        for x in (q, k, v, q_weight, k_weight, bias)
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, list[Tensor]]) -> None:
    out, lse, kept = output
    ctx.mark_non_differentiable(lse, *kept)
    ctx.set_materialize_grads(False)
    *tensors, eps, dropout, seed, tables, sizes, way, _, _ = inputs
    ctx.numbers, ctx.plan = (eps, dropout, seed), (tables, sizes, way)
    ctx.save_for_backward(*tensors, out, lse, *kept)


@once_differentiable
def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    tensors, (out, lse, *kept) = saved[: 3 + OPTIONAL], saved[3 + OPTIONAL :]
    made: list[Any] = [None] * 6
    if grad is not None:
        made = attention_backward(grad, *tensors, *ctx.numbers, *ctx.plan, out, lse, kept)
    q, k, v, q_weight, k_weight, bias = (x if x is not None and x.numel() else None for x in made)
    no_tables = [None] * len(ctx.plan[0])
    of_extras = (q_weight, k_weight, None, None, bias, None, None, None, None)
    return q, k, v, *of_extras, no_tables, None, None, None, None


attention.register_autograd(_backward, setup_context=_setup)
