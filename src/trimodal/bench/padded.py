"""The same model over padded batches and PyTorch's attention: what packing is compared with.

with padded(): loss = model(**batch)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from trimodal.batch import TokenBatch
from trimodal.bench.peers import MASKED
from trimodal.models.cache import Memory
from trimodal.models.layers import EPS, Block, Transformer, rotary_angles


class Bucket(NamedTuple):
    """Segments as one dense block of N x L slots."""

    place_NL: Tensor
    """int64 token of each slot; of those beyond the end, 0."""
    slot_K: Tensor
    """int64 slots that hold a token, end to end."""
    token_K: Tensor
    """int64, which token each of them holds."""
    mask_N1LL: Tensor
    """bool, which slot sees which."""


Layouts = dict[int, tuple[TokenBatch, list[Bucket]]]
"""Buckets of token batches, by their identity: a loader would make them beside the model."""


@contextmanager
def padded(
    length: int | None = None,
    *,
    buckets: int = 1,
    compiled: bool = False,
    layouts: Layouts | None = None,
) -> Iterator[None]:
    """Meanwhile every stack computes over (N, L, D), L being the longest segment or `length`.

    Args:
        length: of every segment, if it is to be more.
        buckets: of segments that are sorted by length; each has an L of its own.
        compiled: whether blocks are compiled.
        layouts: kept from one step over the same batches to the next.
    """
    known: Layouts = {} if layouts is None else layouts

    def forward(
        self: Transformer,
        x_TD: Tensor,
        tokens: TokenBatch,
        memories: Sequence[Memory] | None = None,
    ) -> Tensor:
        if id(tokens) not in known:
            known[id(tokens)] = tokens, lay_out(tokens, length, buckets)
        return _padded_stack(self, x_TD, tokens, known[id(tokens)][1], compiled)

    with mock.patch.object(Transformer, "forward", forward):
        yield


def lay_out(tokens: TokenBatch, length: int | None, buckets: int) -> list[Bucket]:
    """Segments, or views, sorted by length and padded within each of `buckets`."""
    sizes_N = tokens.cu_seqlens.diff()
    order_N = sizes_N.argsort(stable=True)
    tables = tokens.segments.plan("reference", 0).tables
    found = []
    for chosen_N in order_N.chunk(buckets) if buckets > 1 else [torch.arange(len(order_N))]:
        chosen_N = chosen_N.to(sizes_N.device)
        column_L = torch.arange(
            max(int(sizes_N[chosen_N].max()), length or 0), device=sizes_N.device
        )
        inside_NL = column_L < sizes_N[chosen_N][:, None]
        place_NL = (tokens.cu_seqlens[chosen_N][:, None] + column_L).where(inside_NL, 0)
        slot_K = inside_NL.flatten().nonzero()[:, 0]
        mask_N1LL = _mask(tables, place_NL, inside_NL)
        found.append(Bucket(place_NL, slot_K, place_NL.flatten()[slot_K], mask_N1LL))
    return found


def _mask(tables: Sequence[Tensor], place_NL: Tensor, inside_NL: Tensor) -> Tensor:
    """(N, 1, L, L) bool, what the segment table lets see; slots beyond the end see themselves."""
    low_RNL, high_RNL = (table[:, place_NL] for table in tables)
    key_N1L = place_NL.where(inside_NL, -1)[:, None]
    seen = (key_N1L >= low_RNL[..., None]) & (key_N1L < high_RNL[..., None])
    seen_NLL = seen.any(0) & inside_NL[:, :, None]
    itself = torch.eye(place_NL.shape[1], dtype=torch.bool, device=place_NL.device)
    return (seen_NLL | (itself & ~inside_NL[:, :, None]))[:, None]


def _padded_stack(
    stack: Transformer, x_TD: Tensor, tokens: TokenBatch, buckets: Sequence[Bucket], compiled: bool
) -> Tensor:
    config = stack.config
    compute = _compiled() if compiled else _padded_block
    made = []
    for place_NL, slot_K, token_K, mask_N1LL in buckets:
        angles = rotary_angles(
            tokens.positions_T2[place_NL].flatten(0, 1),
            config.width // config.num_heads,
            config.rope_theta,
        )
        cos, sin = (angle.view(*place_NL.shape, 1, -1).transpose(1, 2) for angle in angles)
        # not a gather of the padding too, whose gradients would all be added to one token
        x_SD = x_TD.new_zeros(place_NL.numel(), config.width)
        x_NLD = x_SD.index_copy(0, slot_K, x_TD[token_K]).view(*place_NL.shape, -1)
        for block in stack.blocks:
            assert isinstance(block, Block)  # noqa: S101 - a stack holds nothing else
            x_NLD = compute(x_NLD, cos, sin, mask_N1LL, *_weights(block))
        made.append(stack.norm(x_NLD.flatten(0, 1)[slot_K]))
    if len(made) == 1:
        return made[0]
    token_T = torch.cat([bucket.token_K for bucket in buckets])
    return torch.cat(made)[token_T.argsort()]


def _weights(block: Block) -> list[Tensor]:
    """Of a block, so that one compiled program serves all of them."""
    attention, mlp = block.attention, block.mlp
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    linears = (*linears, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    norms = (block.attention_norm, block.mlp_norm, attention.q_norm, attention.k_norm)
    return [module.weight for module in (*linears, *norms)]


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_padded_block, dynamic=True)


def _padded_block(
    x_NLD: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask_N1LL: Tensor,
    q_proj: Tensor,
    k_proj: Tensor,
    v_proj: Tensor,
    o_proj: Tensor,
    gate_proj: Tensor,
    up_proj: Tensor,
    down_proj: Tensor,
    attention_norm: Tensor,
    mlp_norm: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
) -> Tensor:
    head_dim = len(q_norm)
    normed = _norm(x_NLD, attention_norm)
    q, k, v = (
        F.linear(normed, weight).unflatten(-1, (-1, head_dim)).transpose(1, 2)
        for weight in (q_proj, k_proj, v_proj)
    )
    q, k = (_rotate(_norm(x, norm), cos, sin).to(v.dtype) for x, norm in ((q, q_norm), (k, k_norm)))
    with sdpa_kernel(MASKED):
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_N1LL)
    x_NLD = x_NLD + F.linear(attended.transpose(1, 2).flatten(2), o_proj)
    normed = _norm(x_NLD, mlp_norm)
    return x_NLD + F.linear(
        F.silu(F.linear(normed, gate_proj)) * F.linear(normed, up_proj), down_proj
    )


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    """In fp32, for which there is a fused kernel whatever autocast makes of `x`."""
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, EPS)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
