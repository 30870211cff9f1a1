"""Finite scalar quantisation (Mentzer et al., 2023, arXiv 2309.15505).

values, codes = FSQ((8, 6, 5))(latent_ND)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

SPREAD = 0.9
"""Standard deviation of latents that use all levels equally: they are bounded by a tanh."""
MARGIN = 1e-3
"""How far beyond the outer levels a bounded value may lie, so that they can be reached."""


class Reconstruction(NamedTuple):
    """What an autoencoder around a quantiser gives in training."""

    output: Tensor
    """Shaped as its input."""
    codes: Tensor
    """int64, without the channels."""
    latent: Tensor
    """What was quantised, before it was bounded; channels last."""


class FSQ(nn.Module):
    """Rounds each channel to one of a few levels; a code counts through all combinations.

    There is nothing to learn, so nothing collapses, and no loss of its own.
    """

    half_D: Tensor
    offset_D: Tensor
    scale_D: Tensor
    basis_D: Tensor
    levels_D: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.size = math.prod(levels)
        levels_D = torch.tensor(self.levels, dtype=torch.int64)
        offset_D = 0.5 * (levels_D % 2 == 0)
        half_D = (levels_D - 1) * (1 + MARGIN) / 2
        basis_D = torch.cumprod(torch.tensor((1, *self.levels[:-1]), dtype=torch.int64), 0)
        for name, value in (
            ("levels_D", levels_D),
            ("offset_D", offset_D),
            ("half_D", half_D),
            ("scale_D", (levels_D // 2).float()),
            ("basis_D", basis_D),
        ):
            self.register_buffer(name, value, persistent=False)

    def bound(self, latent_ND: Tensor) -> Tensor:
        """Squash each channel to its levels; even numbers of them are shifted by half a step."""
        shift_D = torch.atanh(self.offset_D / self.half_D)
        return torch.tanh(latent_ND + shift_D) * self.half_D - self.offset_D

    def forward(self, latent_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The values (N, D) in about [-1, 1] that stand for the codes, and the codes (N,) int64.

        Gradients pass the rounding as if it were not there.
        """
        bounded = self.bound(latent_ND)
        rounded = bounded.round()
        values = (bounded + (rounded - bounded).detach()) / self.scale_D
        digits = (rounded.detach() + self.scale_D).long()
        return values, (digits * self.basis_D).sum(-1)

    def values(self, codes_N: Tensor) -> Tensor:
        """The values (N, D) of codes 0 .. size - 1."""
        digits = (codes_N[..., None] // self.basis_D) % self.levels_D
        return digits / self.scale_D - 1


def usage(histogram: Tensor) -> float:
    """The share of codes that occur at all.

    Args:
        histogram: (size,), how often each occurs.
    """
    return float((histogram > 0).double().mean())


def perplexity(histogram: Tensor) -> float:
    """The number of equally frequent codes that would have the same entropy; 0 without any."""
    total = histogram.double().sum()
    if total == 0:
        return 0.0
    share = histogram.double() / total
    return float(torch.exp(torch.special.entr(share).sum()))
