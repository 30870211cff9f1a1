"""Pooling, projection and prediction.

z_NE = EmbeddingHead(width, embedding_dim)(x_TD, cu_seqlens)
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.batch import Modality
from trimodal.vocabulary import Range
from trimodal_kernels import segment_mean


class EmbeddingHead(nn.Module):
    """The mean token of each medium or view, projected; not yet normalised."""

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.projection = nn.Linear(width, embedding_dim, bias=False)

    def forward(self, x_TD: Tensor, cu_seqlens: Tensor) -> Tensor:
        """(T, D) and (N + 1,) to (N, E)."""
        pooled_ND = segment_mean(x_TD, cu_seqlens).to(self.projection.weight.dtype)
        return _upcast(self.projection(pooled_ND))


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
