"""The same model over padded batches and PyTorch's attention: what packing is compared with.

with padded(): loss = model(**batch)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.batch import TokenBatch
from trimodal.models.cache import Memory
from trimodal.models.layers import EPS, Block, Transformer, rotary_angles


@contextmanager
def padded(length: int | None = None) -> Iterator[None]:
    """Meanwhile every stack computes over (N, L, D), L being the longest segment or `length`."""

    def forward(
        self: Transformer,
        x_TD: Tensor,
        tokens: TokenBatch,
        memories: Sequence[Memory] | None = None,
    ) -> Tensor:
        return _padded_stack(self, x_TD, tokens, length)

    with mock.patch.object(Transformer, "forward", forward):
        yield


def _padded_stack(
    stack: Transformer, x_TD: Tensor, tokens: TokenBatch, length: int | None
) -> Tensor:
    sizes = tokens.cu_seqlens.diff()
    longest = max(int(sizes.max()), length or 0)
    inside_NL = torch.arange(longest) < sizes[:, None]
    place_NL = (tokens.cu_seqlens[:-1, None] + torch.arange(longest)).where(inside_NL, 0)
    mask_N1LL = _mask(tokens, place_NL, inside_NL)
    config = stack.config
    angles = rotary_angles(
        tokens.positions_T2[place_NL].flatten(0, 1),
        config.width // config.num_heads,
        config.rope_theta,
    )
    rotary = tuple(angle.view(*place_NL.shape, 1, -1).transpose(1, 2) for angle in angles)
    x_NLD = x_TD[place_NL]
    for block in stack.blocks:
        assert isinstance(block, Block)  # noqa: S101 - a stack holds nothing else
        x_NLD = _padded_block(block, x_NLD, rotary, mask_N1LL)
    return stack.norm(x_NLD[inside_NL])


def _mask(tokens: TokenBatch, place_NL: Tensor, inside_NL: Tensor) -> Tensor:
    """(N, 1, L, L) bool, what the segment table lets see; slots beyond the end see themselves."""
    tables = tokens.segments.plan("reference", 0).tables
    low_RNL, high_RNL = (table[:, place_NL] for table in tables)
    key_N1L = place_NL.where(inside_NL, -1)[:, None]
    seen = (key_N1L >= low_RNL[..., None]) & (key_N1L < high_RNL[..., None])
    seen_NLL = seen.any(0) & inside_NL[:, :, None]
    itself = torch.eye(place_NL.shape[1], dtype=torch.bool) & ~inside_NL[:, :, None]
    return (seen_NLL | itself)[:, None]


def _padded_block(
    block: Block, x_NLD: Tensor, rotary: Sequence[Tensor], mask_N1LL: Tensor
) -> Tensor:
    attention = block.attention
    normed = block.attention_norm(x_NLD)
    q, k, v = (
        project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = (
        _rotate(F.rms_norm(x, x.shape[-1:], norm.weight, EPS), *rotary)
        for x, norm in ((q, attention.q_norm), (k, attention.k_norm))
    )
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_N1LL)
    x_NLD = x_NLD + attention.o_proj(attended.transpose(1, 2).flatten(2))
    mlp, normed = block.mlp, block.mlp_norm(x_NLD)
    return x_NLD + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
