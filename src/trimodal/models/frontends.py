"""What turns the features of a modality into tokens: the one part in which encoders differ.

x_TD = PatchFrontend(patch_dim, width)(features, tokens, hidden_T)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.batch import TokenBatch


class PatchFrontend(nn.Module):
    """Patches (T, P) to tokens by one Linear (Dosovitskiy et al., 2020)."""

    def __init__(self, patch_dim: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(patch_dim, width)
        self.mask = nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor, tokens: TokenBatch, hidden_T: Tensor) -> Tensor:
        """(T, P) to (T, D); hidden patches are zeros already and get a learnt vector."""
        features = features.to(self.mask.dtype)
        return self.projection(features) + hidden_T[:, None] * self.mask


class PieceFrontend(nn.Module):
    """Text ids (T,) to tokens through the rows of the unified vocabulary, which it owns."""

    def __init__(self, vocabulary_size: int, table_width: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary_size, table_width)
        self.projection = nn.Linear(table_width, width, bias=False)

    def forward(self, features: Tensor, tokens: TokenBatch, hidden_T: Tensor) -> Tensor:
        """(T,) to (T, D); hidden pieces are the mask token already."""
        return self.projection(self.table(features))


class ConvFrontend(nn.Module):
    """Log-mel frames (4 T, M) to tokens by two packed convolutions that halve the frames.

    Each is a convolution of kernel 4, stride 2 and padding 1 with zeros beyond the ends of every
    utterance, so packing changes nothing. The receptive field of a token is 10 frames.
    """

    def __init__(self, num_mels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(4 * num_mels, width)
        self.second = nn.Linear(4 * width, width)
        self.projection = nn.Linear(width, width)
        self.mask = nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor, tokens: TokenBatch, hidden_T: Tensor) -> Tensor:
        """(4 T, M) to (T, D); frames of hidden tokens are zeros already and get a learnt vector."""
        starts = tokens.cu_seqlens[:-1]
        x = F.gelu(self.first(_windows(features.to(self.mask.dtype), starts * 2)))
        x = F.gelu(self.second(_windows(x, starts)))
        return self.projection(x) + hidden_T[:, None] * self.mask


def _windows(x_FC: Tensor, starts: Tensor) -> Tensor:
    """(F, C) to (F/2, 4C): pair j with the frame before and after it in its utterance, else 0.

    `starts` are the pairs at which utterances begin.
    """
    pairs = x_FC.view(-1, 2, x_FC.shape[1])
    before = F.pad(pairs[:-1, 1], (0, 0, 1, 0)).index_fill(0, starts, 0.0)
    # the pair before a start ends an utterance; the last pair has no successor at all
    after = F.pad(pairs[1:, 0], (0, 0, 0, 1)).index_fill(0, (starts - 1) % len(pairs), 0.0)
    return torch.cat([before, pairs[:, 0], pairs[:, 1], after], dim=1)
