"""Random numbers that are functions of their place: Philox 4x32-10 as Triton computes it.

u = uniform(seed, queries[:, None], keys[None, :], head)
"""

import torch
from torch import Tensor

ROUNDS = 10
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
LOW = 0xFFFFFFFF


def uniform(seed: int, c0: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """Even draws from [0, 1) in fp32, one for each counter (c0, c1, c2, 0), which are broadcast.

    Source: Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2 = (c.long() for c in torch.broadcast_tensors(c0, c1, c2))
    c3 = torch.zeros_like(c0)
    k0, k1 = seed & LOW, seed >> 32 & LOW
    for _ in range(ROUNDS):
        high_a, low_a = _product(MULTIPLIERS[0], c0)
        high_b, low_b = _product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    # Triton folds negative numbers onto positive ones, then scales
    signed = torch.where(c0 >= 1 << 31, LOW - c0, c0)
    return signed.float() * 4.6566127342e-10


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low 32 bits of a product of two 32-bit numbers, within 63 bits."""
    low, high = b & 0xFFFF, b >> 16
    first, second = a * low, a * high
    total = (first >> 16) + second
    return total >> 16, ((total & 0xFFFF) << 16) | (first & 0xFFFF)
