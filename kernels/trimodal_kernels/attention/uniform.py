"""Packed attention on a CPU where all segments are as long: one block, and nothing is moved.

out_THK, lse_HT, kept = forward(q_THK, k_THK, v_THK, length, extras, keeps=True, wants_lse=False)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trimodal_kernels.attention.extras import Extras, Gradients
from trimodal_kernels.attention.products import (
    Part,
    attend,
    computed_in,
    grade,
    multiplies,
    prepared,
    turned,
)


def forward(
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    length: int,
    extras: Extras,
    keeps: bool,
    wants_lse: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """As `dense.forward`; it keeps the probabilities or else the log-sum-exp."""
    part = _part(q_THK, k_THK, v_THK, length, extras)
    result = attend(part, keeps, wants_lse)
    lse_HT = part.q_BHQK.new_empty(0)
    if wants_lse and result.lse_BHQ is not None:
        # of a single token it would be the same memory as what is kept
        lse_HT = result.lse_BHQ.transpose(0, 1).flatten(1)
        lse_HT = lse_HT.clone(memory_format=torch.contiguous_format)
    out_THK = result.out_BHQK.transpose(1, 2).flatten(0, 1).to(q_THK.dtype)
    return out_THK, lse_HT, result.kept[-1:]


def kept_shapes(q_THK: Tensor, length: int) -> list[tuple[int, ...]]:
    """The shapes of what `forward` keeps."""
    size, heads = q_THK.shape[:2]
    shape = (size // length, heads, length)
    multiplied = multiplies(computed_in(q_THK), length, ragged=False)
    return [(*shape, length)] if multiplied else [shape]


def backward(
    grad_THK: Tensor,
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    out_THK: Tensor,
    kept: Sequence[Tensor],
    length: int,
    extras: Extras,
) -> Gradients:
    """As `dense.backward`."""
    part = _part(q_THK, k_THK, v_THK, length, extras)
    grad, out = (_by_head(x.to(part.q_BHQK.dtype), length) for x in (grad_THK, out_THK))
    again = iter(kept) if part.multiplied else iter([out, *kept])
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in grade(part, grad, again))
    exact = torch.promote_types(q_THK.dtype, torch.float32)
    grad_q, q_weight = turned(q_THK, extras.q_weight_K, extras).backward(q.to(exact))
    grad_k, k_weight = turned(k_THK, extras.k_weight_K, extras).backward(k.to(exact))
    grad_q, grad_k, grad_v = (x.to(q_THK.dtype) for x in (grad_q, grad_k, v))
    return Gradients(grad_q, grad_k, grad_v, q_weight, k_weight)


def _part(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, length: int, extras: Extras) -> Part:
    q, k = prepared(q_THK, k_THK, extras)
    q, k, v = (_by_head(x, length) for x in (q, k, v_THK.to(k.dtype)))
    return Part(q, k, v, None, ragged=False)


def _by_head(x_THK: Tensor, length: int) -> Tensor:
    """(B, H, L, K)."""
    return x_THK.unflatten(0, (-1, length)).transpose(1, 2)
