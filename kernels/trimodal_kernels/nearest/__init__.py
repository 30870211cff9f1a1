"""Which vector of each of several codebooks points most nearly where a vector points.

index_TC = nearest(x_TD, codebooks_CKD)
"""

from torch import Tensor

from trimodal_kernels.nearest.operator import nearest as operator


def nearest(x_TD: Tensor, codebooks_CKD: Tensor) -> Tensor:
    """The nearest of unit vectors to each vector, once that has unit length.

    Of unit vectors the nearest has the largest product. The T x C x K products are never all there.

    Args:
        x_TD: fp32 or fp64 vectors of any length, made unit vectors here; zeros stay zeros.
        codebooks_CKD: C codebooks of K unit vectors, in the same type.

    Returns:
        (T, C) int64; of equally near vectors the one with the lowest index.

    Raises:
        ValueError: shapes or types do not fit together, or a codebook is empty.
    """
    if x_TD.shape[1:] != codebooks_CKD.shape[2:] or not codebooks_CKD.shape[1]:
        raise ValueError(f"vectors {tuple(x_TD.shape)} for codebooks {tuple(codebooks_CKD.shape)}")
    if x_TD.dtype != codebooks_CKD.dtype or x_TD.element_size() < 4:
        raise ValueError(f"vectors of {x_TD.dtype} for codebooks of {codebooks_CKD.dtype}")
    return operator(x_TD.detach(), codebooks_CKD.detach())
