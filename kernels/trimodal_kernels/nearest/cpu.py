"""Nearest vectors on a CPU, a few rows at a time.

index_TC = chunked_nearest(x_TD, codebooks_CKD)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NUMBERS = 1 << 18
"""Products at once, a megabyte of fp32, which stays in the cache."""


def chunked_nearest(x_TD: Tensor, codebooks_CKD: Tensor) -> Tensor:
    """See `nearest`."""
    codebooks, size, _ = codebooks_CKD.shape
    rows = max(1, NUMBERS // max(1, codebooks * size))
    x_TD, flat_DV = F.normalize(x_TD, dim=-1), codebooks_CKD.flatten(0, 1).T
    index_TC = torch.empty(len(x_TD), codebooks, dtype=torch.int64, device=x_TD.device)
    for start in range(0, len(x_TD), rows):
        product_RCK = (x_TD[start : start + rows] @ flat_DV).unflatten(1, (codebooks, size))
        # of a maximum over rows torch is faster to say where it was than of `argmax`
        index_TC[start : start + rows] = product_RCK.max(-1).indices
    return index_TC
