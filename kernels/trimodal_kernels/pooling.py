"""Pooling of packed segments.

y_ND = segment_mean(x_TD, cu_seqlens)
"""

import torch
from torch import Tensor


def segment_mean(x_TD: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The mean over each segment, summed in fp32 at least.

    Args:
        x_TD: packed tokens.
        cu_seqlens: (N + 1,) int64, where each segment starts, and T.

    Returns:
        (N, D) in the type in which it was summed; an empty segment has mean 0.
    """
    x_TD = x_TD.float() if x_TD.dtype in (torch.bfloat16, torch.float16) else x_TD
    return torch.segment_reduce(x_TD, "mean", offsets=cu_seqlens, axis=0, initial=0)
