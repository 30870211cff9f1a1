"""Patches to tokens by convolutions that see across patches, on packed pictures of any size.

x_TD = ConvolutionalStem(patch_size, width)(features, tokens, hidden_T)
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimodal.batch import TokenBatch
from trimodal_kernels import segment_mean

CHANNELS = 3
LEAST_CHANNELS = 24
PLACE_SCALE = 0.5
"""Deviation of the weights of a place, so that it is heard beside what a patch shows."""
LEAST_DEVIATION = 1e-2
"""Of the pixels of a picture, which lie in [-1, 1]; a plain one is not blown up to noise."""


class Neighbours(NamedTuple):
    """For each of T patches the index of the one beside it in its picture, T if there is none."""

    left: Tensor
    right: Tensor
    above: Tensor
    below: Tensor


class ConvolutionalStem(nn.Module):
    """Convolutions of kernel 4, stride 2 and padding 1, until a patch is one pixel.

    What an edge or a corner is need not be learnt anew for each place in a patch, so shapes are
    learnt from fewer pictures than by one Linear (Xiao et al., 2021). Each picture is brought to
    mean 0 and deviation 1 first, and the mean of its colours goes along as three more channels.
    Borders come from the neighbouring patches, zeros beyond the picture, so packing changes
    nothing. Where in the picture a patch lies is added to what it shows, since rotary positions
    tell only how far two patches are apart (compare CoordConv, Liu et al., 2018).
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        depth = int(math.log2(patch_size))
        inner = [max(LEAST_CHANNELS, width >> i) for i in reversed(range(1, depth))]
        sizes = [2 * CHANNELS, *inner, width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=4, stride=2) for a, b in pairwise(sizes)
        )
        self.projection = nn.Linear(width, width)
        self.place = nn.Linear(2, width, bias=False)
        self.mask = nn.Parameter(torch.zeros(width))

    def init_weights(self) -> None:
        """By the fan-in; what suits wide layers makes a picture fade in layers as thin as these."""
        for layer in (*self.convolutions, self.projection):
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
            nn.init.zeros_(bias)
        nn.init.normal_(self.place.weight, std=PLACE_SCALE)

    def products(self) -> int:
        """Multiplications of the convolutions for a patch."""
        sides = (self.patch_size >> (i + 1) for i in range(len(self.convolutions)))
        weights = (layer.get_parameter("weight").numel() for layer in self.convolutions)
        return sum(count * side**2 for count, side in zip(weights, sides, strict=True))

    def forward(self, features: Tensor, tokens: TokenBatch, hidden_T: Tensor) -> Tensor:
        """(T, P) to (T, D); hidden patches are zeros already and get a learnt vector."""
        dtype = self.mask.dtype
        x_TCHW = self._standardised(features.to(dtype), tokens, hidden_T).to(dtype)
        beside = neighbours(tokens)
        for convolution in self.convolutions:
            x_TCHW = F.gelu(convolution(bordered(x_TCHW, beside)))
        x_TD = self.projection(x_TCHW.flatten(1)) + self.place(places(tokens).to(dtype))
        return x_TD + hidden_T[:, None] * self.mask

    def _standardised(self, features: Tensor, tokens: TokenBatch, hidden_T: Tensor) -> Tensor:
        """(T, 2 C, p, p): pixels and mean colour of what is seen of each picture."""
        pixels_TCP = features.unflatten(1, (CHANNELS, -1))
        seen_T1 = (~hidden_T)[:, None].to(features.dtype)
        share_N1 = segment_mean(seen_T1, tokens.cu_seqlens).clamp(min=1e-6)
        mean_TC = _spread(segment_mean(pixels_TCP.mean(2), tokens.cu_seqlens) / share_N1, tokens)
        apart_TCP = (pixels_TCP - mean_TC[:, :, None]) * seen_T1[:, :, None]
        square_T1 = apart_TCP.square().mean((1, 2))[:, None]
        deviation_N1 = (segment_mean(square_T1, tokens.cu_seqlens) / share_N1).sqrt()
        deviation_T1 = _spread(deviation_N1.clamp(min=LEAST_DEVIATION), tokens)
        colour_TCP = (mean_TC[:, :, None] * seen_T1[:, :, None]).expand_as(apart_TCP)
        both = torch.cat([apart_TCP / deviation_T1[:, :, None], colour_TCP], dim=1)
        return both.unflatten(2, (self.patch_size, self.patch_size))


def places(tokens: TokenBatch) -> Tensor:
    """(T, 2): row and column of the middle of each patch, from -1 to 1 over its picture."""
    size_T2 = _spread(tokens.positions_T2[tokens.cu_seqlens[1:] - 1] + 1, tokens)
    return (2 * tokens.positions_T2 + 1) / size_T2 - 1


def neighbours(tokens: TokenBatch) -> Neighbours:
    """Which patches lie beside which; those of a picture are packed row by row."""
    row_T, column_T = tokens.positions_T2.unbind(1)
    last_N2 = tokens.positions_T2[tokens.cu_seqlens[1:] - 1]
    last_T2 = _spread(last_N2, tokens)
    none = torch.full_like(row_T, len(row_T))
    index_T, columns_T = torch.arange(len(row_T), device=row_T.device), last_T2[:, 1] + 1
    return Neighbours(
        left=torch.where(column_T > 0, index_T - 1, none),
        right=torch.where(column_T < last_T2[:, 1], index_T + 1, none),
        above=torch.where(row_T > 0, index_T - columns_T, none),
        below=torch.where(row_T < last_T2[:, 0], index_T + columns_T, none),
    )


def bordered(x_TCHW: Tensor, beside: Neighbours) -> Tensor:
    """(T, C, H + 2, W + 2): a pixel more on each side, of the patch that lies there, else 0."""
    wide = torch.cat(
        [_taken(x_TCHW[..., -1:], beside.left), x_TCHW, _taken(x_TCHW[..., :1], beside.right)], -1
    )
    above = _taken(wide[:, :, -1:], beside.above)
    return torch.cat([above, wide, _taken(wide[:, :, :1], beside.below)], 2)


def _taken(x_TCHW: Tensor, index_T: Tensor) -> Tensor:
    return torch.cat([x_TCHW, x_TCHW.new_zeros(1, *x_TCHW.shape[1:])]).index_select(0, index_T)


def _spread(x_ND: Tensor, tokens: TokenBatch) -> Tensor:
    """What each picture has, for each of its patches (T, D)."""
    return x_ND.repeat_interleave(tokens.cu_seqlens.diff(), dim=0, output_size=tokens.num_tokens)
