"""Packed attention on a CPU: blocks of similar ranges, a few large products for each.

out_THK, lse_HT, kept = forward(q_THK, k_THK, v_THK, plan, extras, keeps=True, wants_lse=False)
gradients = backward(grad_THK, q_THK, k_THK, v_THK, out_THK, kept, plan, extras)
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trimodal_kernels.attention import uniform
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
from trimodal_kernels.blocks import Dense, Gathers


def forward(
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    plan: Dense,
    extras: Extras,
    keeps: bool,
    wants_lse: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """What attention gives, its log-sum-exp if that is wanted, and what `backward` wants again.

    Without matrix units for bfloat16, products of it are slower than the same in fp32.
    """
    if plan.uniform:
        length = plan.uniform
        return uniform.forward(q_THK, k_THK, v_THK, length, extras, keeps, wants_lse)
    heads, width = q_THK.shape[1:]
    q, k = prepared(q_THK, k_THK, extras)
    slots = [
        q.reshape(-1, width).index_select(0, plan.gathers.query),
        k.reshape(-1, width).index_select(0, plan.gathers.key),
        v_THK.to(k.dtype).reshape(-1, width).index_select(0, plan.gathers.key),
    ]
    results = [attend(part, keeps, wants_lse) for part in _parts(slots, plan, heads)]
    output = plan.gathers.output
    out_THK = _joined([r.out_BHQK.reshape(-1, width) for r in results], q).index_select(0, output)
    lse_HT = q.new_empty(0)
    if wants_lse:
        lse = torch.cat([r.lse_BHQ.flatten() for r in results if r.lse_BHQ is not None])
        lse_HT = lse.index_select(0, output).view(-1, heads).T.contiguous()
    kept = [x for result in results for x in result.kept]
    return out_THK.view_as(q_THK).to(q_THK.dtype), lse_HT, [*slots, *kept] if keeps else []


def kept_shapes(q_THK: Tensor, plan: Dense) -> list[tuple[int, ...]]:
    """The shapes of what `forward` keeps."""
    if plan.uniform:
        return uniform.kept_shapes(q_THK, plan.uniform)
    heads, width = q_THK.shape[1:]
    slots = [len(x) for x in (plan.gathers.query, plan.gathers.key, plan.gathers.key)]
    shapes: list[tuple[int, ...]] = [(size, width) for size in slots]
    for b, q, length in plan.shapes:
        if multiplies(computed_in(q_THK), length, ragged=True):
            shapes.append((b, heads, q, length))
        else:
            shapes += [(b, heads, q, width), (b, heads, q)]
    return shapes


def backward(
    grad_THK: Tensor,
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    out_THK: Tensor,
    kept: Sequence[Tensor],
    plan: Dense,
    extras: Extras,
) -> Gradients:
    """The gradients, from that of the output and from what `forward` gave and kept."""
    if plan.uniform:
        return uniform.backward(grad_THK, q_THK, k_THK, v_THK, out_THK, kept, plan.uniform, extras)
    heads, width = q_THK.shape[1:]
    slots, rest = list(kept[:3]), iter(kept[3:])
    grad = grad_THK.to(slots[0].dtype).reshape(-1, width).index_select(0, plan.gathers.query)
    grad.index_fill_(0, plan.gathers.spare, 0.0)
    made: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    pieces = _split(grad, [(b, q) for b, q, _ in plan.shapes], heads)
    for part, grad_BHQK in zip(_parts(slots, plan, heads), pieces, strict=True):
        for found, x in zip(made, grade(part, grad_BHQK, rest), strict=True):
            found.append(x.reshape(-1, width))
    q_slots, k_slots, v_slots = (_joined(found, grad) for found in made)
    exact = torch.promote_types(q_THK.dtype, torch.float32)
    grad_q = q_slots.index_select(0, plan.gathers.output).view_as(q_THK)
    grad_q, grad_q_weight = turned(q_THK, extras.q_weight_K, extras).backward(grad_q.to(exact))
    grad_k = _gathered(k_slots, plan.gathers).view_as(k_THK)
    grad_k, grad_k_weight = turned(k_THK, extras.k_weight_K, extras).backward(grad_k.to(exact))
    grad_v = _gathered(v_slots, plan.gathers).view_as(v_THK)
    grad_q, grad_k, grad_v = (x.to(q_THK.dtype) for x in (grad_q, grad_k, grad_v))
    return Gradients(grad_q, grad_k, grad_v, grad_q_weight, grad_k_weight)


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.cat(list(parts)) if parts else like.new_empty(0, like.shape[-1])


def _parts(slots: Sequence[Tensor], plan: Dense, heads: int) -> Iterator[Part]:
    q, k, v = slots
    queries = _split(q, [(b, size) for b, size, _ in plan.shapes], heads)
    shapes = [(b, size) for b, _, size in plan.shapes]
    pieces = zip(
        queries, _split(k, shapes, heads), _split(v, shapes, heads), plan.masks, strict=True
    )
    return (Part(*piece, ragged=True) for piece in pieces)


def _split(x_SK: Tensor, shapes: Sequence[tuple[int, int]], heads: int) -> list[Tensor]:
    pieces = x_SK.split([b * heads * size for b, size in shapes])
    return [x.view(b, heads, size, -1) for x, (b, size) in zip(pieces, shapes, strict=True)]


def _gathered(slots: Tensor, gathers: Gathers) -> Tensor:
    """Gradients of keys: of one slot each, plus those of the further slots of some."""
    total = slots.index_select(0, gathers.first)
    if gathers.unseen.numel():
        total.index_fill_(0, gathers.unseen, 0.0)
    if gathers.again.numel():
        total.index_add_(0, gathers.again[1], slots.index_select(0, gathers.again[0]))
    return total
