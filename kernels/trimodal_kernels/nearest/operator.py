"""`trimodal::nearest`; indices have no gradient.

index_TC = nearest(x_TD, codebooks_CKD)
"""

import torch
from torch import Tensor

from trimodal_kernels.dispatch import chosen
from trimodal_kernels.nearest.cpu import chunked_nearest
from trimodal_kernels.nearest.reference import reference_nearest


@torch.library.custom_op("trimodal::nearest", mutates_args=())
def nearest(x_TD: Tensor, codebooks_CKD: Tensor) -> Tensor:
    """See `trimodal_kernels.nearest.nearest`."""
    path = chosen(x_TD.device)
    if path == "reference":
        return reference_nearest(x_TD, codebooks_CKD)
    if path == "cpu":
        return chunked_nearest(x_TD, codebooks_CKD)
    from trimodal_kernels.nearest import kernels

    return kernels.nearest(x_TD, codebooks_CKD)


@nearest.register_fake
def _(x_TD: Tensor, codebooks_CKD: Tensor) -> Tensor:
    return x_TD.new_empty((len(x_TD), len(codebooks_CKD)), dtype=torch.int64)
