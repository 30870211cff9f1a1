"""Pooling, projection and prediction.

z_NE = EmbeddingHead(width, embedding_dim, orders=2)(x_TD, tokens)
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.batch import Modality, TokenBatch
from trimodal.config import ModelConfig
from trimodal.models.norm import RMSNorm
from trimodal.vocabulary import Range
from trimodal_kernels import Scores, segment_mean

BEST_RQ_CODES = 1024
"""Codes of each random codebook."""


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

    def __init__(self, config: ModelConfig, feature_dims: Mapping[Modality, int]) -> None:
        super().__init__()
        width = config.trunk.width
        self.transform = nn.Linear(width, width)
        self.norm = RMSNorm(width)
        self.features = nn.ModuleDict(
            {modality.name.lower(): nn.Linear(width, dim) for modality, dim in feature_dims.items()}
        )
        cells = {Modality.VISION: config.vision_codes, Modality.SPEECH: config.speech_codes}
        self.cells = nn.ModuleDict(
            {m.name.lower(): nn.Embedding(count, width) for m, count in cells.items()}
        )
        self.length = nn.Linear(width, 2)
        self.best_rq = (
            nn.Linear(width, config.best_rq_codebooks * BEST_RQ_CODES)
            if config.best_rq_codebooks
            else None
        )

    def ids(self, x_KD: Tensor, table: Tensor, ids: Range) -> Scores:
        """Scores (K, size) over one range of the tied table (V, D)."""
        return Scores.of(self._hidden(x_KD), table[ids.start : ids.start + ids.size])

    def codes(self, x_KD: Tensor, table: Tensor, modality: Modality, ids: Range) -> Scores:
        """Scores (K, C, size) of the C codes that a hidden patch or frame token covers."""
        cells = cast(nn.Embedding, self.cells[modality.name.lower()]).weight
        return self.ids(x_KD[:, None] + cells, table, ids)

    def values(self, x_KD: Tensor, modality: Modality) -> Tensor:
        """Features (K, P) of hidden patches or frames."""
        return _upcast(self.features[modality.name.lower()](self._hidden(x_KD)))

    def quantised(self, x_KD: Tensor) -> Tensor:
        """Logits (K, codebooks, codes) of the BEST-RQ targets of hidden frames."""
        assert self.best_rq is not None  # noqa: S101 - a run without codebooks asks for none
        return _upcast(self.best_rq(self._hidden(x_KD)).unflatten(1, (-1, BEST_RQ_CODES)))

    def lengths(self, x_KD: Tensor) -> Tensor:
        """(K, 2): mean and logarithm of the deviation of the logarithm of a length.

        The deviation stays above 1/20; below it a few exact answers would outweigh all others.
        """
        mean_K, raw_K = _upcast(self.length(self._hidden(x_KD))).unbind(-1)
        return torch.stack([mean_K, F.softplus(raw_K) + math.log(0.05)], dim=-1)

    def unused(self) -> Tensor:
        """The sum of the parameters, for a path of gradient zero to those a step leaves out."""
        return torch.stack([p.sum() for p in self.parameters()]).sum()

    def _hidden(self, x_KD: Tensor) -> Tensor:
        return self.norm(F.gelu(self.transform(x_KD)))


def _upcast(x: Tensor) -> Tensor:
    """Losses and norms are computed in fp32 at least, whatever autocast chose."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
