"""Attention of one dense block on a CPU, and its gradient.

result = attend(part, keeps=True, wants_lse=False)
grads = grade(part, grad_BHQK, iter(result.kept))
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.attention.turning import Turned, turn_pair

LONGEST_RAGGED = 128
"""Keys up to which plain products beat PyTorch's flash attention on ranges that need a mask."""
LONGEST_BFLOAT16 = 768
"""Keys up to which they beat it on CPUs with matrix units for bfloat16."""

aten = torch.ops.aten


class Part(NamedTuple):
    """One bucket's heads, slot by slot."""

    q_BHQK: Tensor
    k_BHLK: Tensor
    v_BHLK: Tensor
    mask_B1QL: Tensor | None
    ragged: bool
    """It was gathered from ranges of several lengths."""

    @property
    def multiplied(self) -> bool:
        """Whether it is a matter of plain products."""
        return multiplies(self.q_BHQK.dtype, self.k_BHLK.shape[2], self.ragged)


def computed_in(x: Tensor) -> torch.dtype:
    """The type in which this CPU computes on `x`."""
    return torch.float32 if x.element_size() < 4 and not has_matrix_units() else x.dtype


def prepared(q_THK: Tensor, k_THK: Tensor, extras: Extras) -> tuple[Tensor, Tensor]:
    """Queries and keys as they meet, rounded for products at most once."""
    dtype = computed_in(q_THK)
    q, k = turn_pair(q_THK, k_THK, extras.weights, extras.rotary, extras.eps)
    return q.to(dtype), k.to(dtype)


def turned(x_THK: Tensor, weight_K: Tensor | None, extras: Extras) -> Turned:
    """For the gradient of queries or of keys, in fp32 at least."""
    x_THK = x_THK.to(torch.promote_types(x_THK.dtype, torch.float32))
    return Turned(x_THK, weight_K, extras.cos_Tk, extras.sin_Tk, extras.eps)


@cache
def has_matrix_units() -> bool:
    """Whether the CPU multiplies bfloat16 faster than fp32."""
    return bool(torch.cpu.get_capabilities().get("amx_tile", False))


def multiplies(dtype: torch.dtype, length: int, ragged: bool) -> bool:
    """Whether so many keys are a matter of plain products, the same in every pass of a step."""
    if dtype.itemsize < 4:
        return length <= LONGEST_BFLOAT16
    return ragged and length <= LONGEST_RAGGED


class Result(NamedTuple):
    """Of one bucket."""

    out_BHQK: Tensor
    lse_BHQ: Tensor | None
    kept: list[Tensor]
    """Probabilities; of long ranges the output and the log-sum-exp."""


def attend(part: Part, keeps: bool, wants_lse: bool) -> Result:
    """What the queries of a block get; all of its log-sum-exp and what it keeps if asked."""
    q, k, v, mask, _ = part
    if part.multiplied:
        score_BHQL = _product(q, k.transpose(2, 3), q.shape[-1] ** -0.5)
        if mask is not None:
            score_BHQL.masked_fill_(~mask, float("-inf"))
        exact_BHQL = score_BHQL.float() if q.element_size() < 4 else score_BHQL
        p_BHQL = exact_BHQL.softmax(-1).to(v.dtype)
        lse_BHQ = exact_BHQL.logsumexp(-1) if wants_lse else None
        return Result(p_BHQL @ v, lse_BHQ, [p_BHQL] if keeps else [])
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=_added(mask, q))
    return Result(out, lse, [out, lse] if keeps else [])


def grade(part: Part, grad: Tensor, kept: Iterator[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the queries, keys and values of a block."""
    q, k, v, mask, _ = part
    if not part.multiplied:
        out, lse = next(kept), next(kept)
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, False, attn_mask=_added(mask, q)
        )
    p = next(kept)
    exact = torch.promote_types(p.dtype, torch.float32)
    grad_p = (grad @ v.transpose(2, 3)).to(exact)
    score = aten._softmax_backward_data(grad_p, p.to(exact), -1, exact).to(p.dtype)
    scale = q.shape[-1] ** -0.5
    grad_q, grad_k = _product(score, k, scale), _product(score.transpose(2, 3), q, scale)
    return grad_q, grad_k, p.transpose(2, 3) @ grad


def _product(a_BHMK: Tensor, b_BHKN: Tensor, scale: float) -> Tensor:
    """(B, H, M, N), scaled as it is made."""
    none = a_BHMK.new_empty(1, 1, 1)
    a, b = a_BHMK.flatten(0, 1), b_BHKN.flatten(0, 1)
    made = torch.baddbmm(none, a, b, beta=0, alpha=scale)
    return made.unflatten(0, a_BHMK.shape[:2])


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask as flash attention takes it, added to the scores."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=like.dtype).masked_fill_(~mask, float("-inf"))
