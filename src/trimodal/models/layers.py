"""Transformer blocks over packed tokens, one class for every encoder and for the trunk.

x_TD = Transformer(config)(x_TD, tokens)
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trimodal.batch import TokenBatch
from trimodal.config import TransformerConfig
from trimodal.models.cache import Memory
from trimodal.models.dropout import PLACE, dropout
from trimodal.models.norm import EPS, RMSNorm
from trimodal_kernels import Segments, gated, packed_attention, turn_pair


def rotary_angles(positions_T2: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, K/2), in fp32, of axial rotary positions (Su et al., 2021).

    The first half of the frequencies turns with the row, the second with the column. Text and
    speech carry their index in both, which makes them ordinary one-dimensional positions.
    """
    quarter = head_dim // 4
    exponent = torch.arange(quarter, device=positions_T2.device, dtype=torch.float32) / quarter
    frequency = theta**-exponent
    angle_T2q = positions_T2.float()[:, :, None] * frequency
    angle_Tk = angle_T2q.flatten(1)
    return angle_Tk.cos(), angle_Tk.sin()


class Attention(nn.Module):
    """Packed attention with separate q, k, v, o Linears and normalised queries and keys."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        head_dim = config.width // config.num_heads
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, config.width, bias=False)
        self.v_proj = nn.Linear(config.width, config.width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)
        self.q_norm = RMSNorm(head_dim)
        self.k_norm = RMSNorm(head_dim)

    def forward(
        self,
        x_TD: Tensor,
        rotary: tuple[Tensor, Tensor],
        segments: Segments,
        memory: Memory | None = None,
    ) -> Tensor:
        """(T, D) to (T, D); with a memory, keys are those of its slots."""
        q, k, v = (
            project(x_TD).view(len(x_TD), self.num_heads, x_TD.shape[-1] // self.num_heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        norms = self.q_norm.weight, self.k_norm.weight
        if memory is None:
            attended = packed_attention(q, k, v, segments, norms=norms, rotary=rotary, eps=EPS)
        else:
            q, k = (x.to(v.dtype) for x in turn_pair(q, k, norms, rotary, EPS))
            k, v = memory.write(k, v)
            attended = packed_attention(q, k, v, segments)
        return self.o_proj(attended.flatten(1))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = max(8, round(config.width * config.mlp_ratio / 8) * 8)
        self.gate_proj = nn.Linear(config.width, hidden, bias=False)
        self.up_proj = nn.Linear(config.width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, config.width, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        """(T, D) to (T, D)."""
        return self.down_proj(gated(self.gate_proj(x_TD), self.up_proj(x_TD)))


class Block(nn.Module):
    """A pre-norm residual block."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(config)
        self.dropout = config.dropout

    def forward(
        self,
        x_TD: Tensor,
        rotary: tuple[Tensor, Tensor],
        segments: Segments,
        memory: Memory | None = None,
        seed_T: Tensor | None = None,
    ) -> Tensor:
        """(T, D) to (T, D); the seeds are those of dropout in this block."""
        attended = self.attention(self.attention_norm(x_TD), rotary, segments, memory)
        x_TD = x_TD + self._dropped(attended, seed_T, 0)
        return x_TD + self._dropped(self.mlp(self.mlp_norm(x_TD)), seed_T, 1)

    def _dropped(self, x_TD: Tensor, seed_T: Tensor | None, place: int) -> Tensor:
        if not self.training or not self.dropout:
            return x_TD
        return dropout(x_TD, self.dropout, seed_T, place)


class Transformer(nn.Module):
    """Blocks and a final norm over packed tokens."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width)
        self.recomputes = False
        """Whether the backward pass computes blocks again (Chen et al., 2016)."""

    def forward(
        self, x_TD: Tensor, tokens: TokenBatch, memories: Sequence[Memory] | None = None
    ) -> Tensor:
        """(T, D) to (T, D); a token sees what `tokens.segments` lets it.

        Args:
            x_TD: the tokens.
            tokens: their positions and segments.
            memories: for each block, cached keys and values, whose slots are then the keys of the
                segment table.
        """
        config = self.config
        rotary = rotary_angles(
            tokens.positions_T2, config.width // config.num_heads, config.rope_theta
        )
        recomputes = self.recomputes and torch.is_grad_enabled()
        for i, block in enumerate(self.blocks):
            memory = memories[i] if memories else None
            seed_T = None if tokens.seed_T is None else tokens.seed_T + 2 * i * PLACE
            inputs = (x_TD, rotary, tokens.segments, memory, seed_T)
            if recomputes:
                x_TD = cast(Tensor, checkpoint(block, *inputs, use_reentrant=False))
            else:
                x_TD = block(*inputs)
        return self.norm(x_TD)

    def output_scale(self) -> float:
        """Standard deviation for the Linears that write to the residual stream (GPT-2)."""
        return 0.02 / math.sqrt(2 * max(1, self.config.depth))
