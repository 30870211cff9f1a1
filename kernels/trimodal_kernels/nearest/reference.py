"""Nearest vectors by all products at once, T x C x K in memory.

index_TC = reference_nearest(x_TD, codebooks_CKD)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def reference_nearest(x_TD: Tensor, codebooks_CKD: Tensor) -> Tensor:
    """See `nearest`."""
    return torch.einsum("td,ckd->tck", F.normalize(x_TD, dim=-1), codebooks_CKD).argmax(-1)
