"""Dropout whose draws belong to tokens: what is dropped of one depends on its seed alone.

x_TD = dropout(x_TD, 0.1, tokens.seed_T, place=3)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15 - 2**64
MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
SHIFTS = (30, 27, 31)
PLACE = 1 << 40
"""Between the seeds of two places of a token, so that those of a medium's tokens lie between."""
LANES = 4
"""Draws of 16 bits in a word."""
STEPS = 1 << 16


def dropout(x_TD: Tensor, rate: float, seed_T: Tensor | None, place: int) -> Tensor:
    """Zeros in place of a share of the numbers, the others scaled so that the mean stays.

    With seeds the draws are the same whatever a token is packed with, on any device and in any
    number of passes, so nothing about them has to be saved or replayed.

    Args:
        x_TD: the tokens.
        rate: the share, in [0, 1); with seeds to 16 bits.
        seed_T: int64 of each token; without it torch's own generator draws.
        place: tells the draws of this layer from those of others.
    """
    if seed_T is None:
        return F.dropout(x_TD, rate)
    width = x_TD.shape[1]
    words_TW = splitmix(seed_T + place * PLACE, -(-width // LANES))
    dropped = min(round(rate * STEPS), STEPS - 1)
    kept_TD = words_TW.view(torch.int16)[:, :width] >= dropped - STEPS // 2
    return torch.where(kept_TD, x_TD * (STEPS / (STEPS - dropped)), 0.0)


def splitmix(seed_T: Tensor, count: int) -> Tensor:
    """The first `count` numbers (T, count) int64 of the SplitMix64 generator of each seed.

    Source: Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators".
    """
    number_C = torch.arange(1, count + 1, device=seed_T.device)
    x = seed_T[:, None] + number_C * GAMMA
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        x = (x ^ _shifted(x, shift)) * multiplier
    return x ^ _shifted(x, SHIFTS[-1])


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right, zeros coming in; torch repeats the sign."""
    return (x >> by) & ((1 << 64 - by) - 1)
