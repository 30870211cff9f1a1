"""Pooling, projection and prediction.

z_NE = EmbeddingHead(width, embedding_dim, orders=2)(x_TD, tokens)
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.batch import Modality, TokenBatch
from trimodal.vocabulary import Range
from trimodal_kernels import segment_mean


class EmbeddingHead(nn.Module):
    """Cosine moments of the tokens of each medium or view, projected; not yet normalised.

    The mean does not know in which order its tokens stood, and attention learns to write it into
    them slowly. The next coefficients of a cosine transform over rows and over columns keep the
    order from the first step on (Almarwani et al., 2019).
    """

    def __init__(self, width: int, embedding_dim: int, orders: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.orders = orders
        self.projection = nn.Linear(width * (1 + 2 * orders), embedding_dim, bias=False)

    def forward(self, x_TD: Tensor, tokens: TokenBatch) -> Tensor:
        """(T, D) to (N, E)."""
        moments = [segment_mean(x_TD, tokens.cu_seqlens)]
        for wave_T in self._waves(tokens) if self.orders else ():
            moments.append(segment_mean(x_TD * wave_T[:, None], tokens.cu_seqlens))
        pooled = torch.cat(moments, dim=1).to(self.projection.weight.dtype)
        return _upcast(self.projection(pooled))

    def _waves(self, tokens: TokenBatch) -> list[Tensor]:
        """The weight (T,) of each token in each moment, by its place within its medium."""
        positions_T2 = tokens.positions_T2.float()
        size_N2 = torch.segment_reduce(positions_T2 + 1, "max", offsets=tokens.cu_seqlens, axis=0)
        size_T2 = size_N2.repeat_interleave(
            tokens.cu_seqlens.diff(), dim=0, output_size=len(positions_T2)
        )
        phase_T2 = math.pi * (positions_T2 + 0.5) / size_T2
        return [
            math.sqrt(2) * (order * phase_T2[:, axis]).cos()
            for axis in (0, 1)
            for order in range(1, self.orders + 1)
        ]


class PredictionHead(nn.Module):
    """What was hidden, from trunk tokens: ids over one range of the table, or plain features."""

    def __init__(self, width: int, feature_dims: Mapping[Modality, int]) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.features = nn.ModuleDict(
            {modality.name.lower(): nn.Linear(width, dim) for modality, dim in feature_dims.items()}
        )

    def ids(self, x_KD: Tensor, table: Tensor, ids: Range) -> Tensor:
        """Logits (K, size) over one range of the tied table (V, D)."""
        rows = table[ids.start : ids.start + ids.size]
        return _upcast(F.linear(self._hidden(x_KD), rows))

    def values(self, x_KD: Tensor, modality: Modality) -> Tensor:
        """Features (K, P) of hidden patches or frames."""
        return _upcast(self.features[modality.name.lower()](self._hidden(x_KD)))

    def _hidden(self, x_KD: Tensor) -> Tensor:
        return self.norm(F.gelu(self.transform(x_KD)))


def _upcast(x: Tensor) -> Tensor:
    """Losses and norms are computed in fp32 at least, whatever autocast chose."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
