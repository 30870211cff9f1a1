"""Contrast of rows with columns without the matrix of all of their products.

loss_N = info_nce(a_NE, b_ME, group_N, group_M, scale)
"""

import torch
from torch import Tensor

from trimodal_kernels.contrastive.operator import contrast
from trimodal_kernels.contrastive.pairs import Pairs, accumulator, positives, ranks
from trimodal_kernels.contrastive.reference import losses
from trimodal_kernels.dispatch import chosen

__all__ = [
    "info_nce",
    "info_nce_two_sided",
    "sigmoid_contrast",
    "sigmoid_contrast_two_sided",
]

FEW = 512 * 512
"""Products that a CPU had better keep than compute twice."""


def info_nce(
    a_NE: Tensor,
    b_ME: Tensor,
    group_N: Tensor,
    group_M: Tensor,
    scale: Tensor,
    column_M: Tensor | None = None,
) -> Tensor:
    """Softmax contrast with several positives (van den Oord et al., 2018; Khosla et al., 2020).

    Sums and maxima of exponentials are taken tile by tile, as in Cheng et al. (2024). Memory grows
    with N + M, the result is the same in every run, and with autocast products are of its type.

    Args:
        a_NE: unit-norm queries.
        b_ME: unit-norm candidates, of the same type.
        group_N: int64 of any values; a query's positives are the candidates of its group.
        group_M: int64, likewise.
        scale: inverse temperature, a scalar.
        column_M: bool, which candidates take part; all if it is left out.

    Returns:
        (N,) the mean negative log-probability of each query's positives, 0 where it has none; in
        float32, or float64 for such inputs.

    Raises:
        ValueError: shapes or types do not fit together.
    """
    return _contrast(a_NE, b_ME, group_N, group_M, scale, None, None, column_M, both=False)[0]


def info_nce_two_sided(
    a_NE: Tensor,
    b_ME: Tensor,
    group_N: Tensor,
    group_M: Tensor,
    scale: Tensor,
    row_N: Tensor | None = None,
    column_M: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`info_nce` of rows against columns and of columns against rows, at the price of one.

    Args:
        a_NE: see `info_nce`.
        b_ME: see `info_nce`.
        group_N: see `info_nce`.
        group_M: see `info_nce`.
        scale: see `info_nce`.
        row_N: bool, which rows are candidates of columns; all if it is left out.
        column_M: bool, which columns are candidates of rows; all if it is left out.

    Returns:
        (N,) and (M,).
    """
    return _contrast(a_NE, b_ME, group_N, group_M, scale, None, row_N, column_M, both=True)


def sigmoid_contrast(
    a_NE: Tensor,
    b_ME: Tensor,
    group_N: Tensor,
    group_M: Tensor,
    scale: Tensor,
    bias: Tensor,
    column_M: Tensor | None = None,
) -> Tensor:
    """Pairwise sigmoid contrast (Zhai et al., 2023).

    Args:
        a_NE: see `info_nce`.
        b_ME: see `info_nce`.
        group_N: see `info_nce`.
        group_M: see `info_nce`.
        scale: see `info_nce`.
        bias: added to each scaled product, a scalar.
        column_M: see `info_nce`.

    Returns:
        (N,) the summed loss of each query's pairs.
    """
    return _contrast(a_NE, b_ME, group_N, group_M, scale, bias, None, column_M, both=False)[0]


def sigmoid_contrast_two_sided(
    a_NE: Tensor,
    b_ME: Tensor,
    group_N: Tensor,
    group_M: Tensor,
    scale: Tensor,
    bias: Tensor,
    row_N: Tensor | None = None,
    column_M: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`sigmoid_contrast` of rows and of columns; arguments as in `info_nce_two_sided`."""
    return _contrast(a_NE, b_ME, group_N, group_M, scale, bias, row_N, column_M, both=True)


def _contrast(
    a_NE: Tensor,
    b_ME: Tensor,
    group_N: Tensor,
    group_M: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    row_N: Tensor | None,
    column_M: Tensor | None,
    both: bool,
) -> tuple[Tensor, Tensor]:
    if a_NE.dim() != 2 or b_ME.dim() != 2 or a_NE.shape[1] != b_ME.shape[1]:
        raise ValueError(f"rows {tuple(a_NE.shape)} and columns {tuple(b_ME.shape)} do not match")
    named = {"group_N": group_N, "row_N": row_N}, {"group_M": group_M, "column_M": column_M}
    for x, named_K in zip((a_NE, b_ME), named, strict=True):
        for name, x_K in named_K.items():
            if x_K is not None and x_K.shape != x.shape[:1]:
                raise ValueError(f"{name} is {tuple(x_K.shape)} for {len(x)} embeddings")
    if scale.numel() != 1 or (bias is not None and bias.numel() != 1):
        raise ValueError("scale and bias are one number each")
    kind = a_NE.device.type
    if torch.is_autocast_enabled(kind):
        a_NE, b_ME = (x.to(torch.get_autocast_dtype(kind)) for x in (a_NE, b_ME))
    if a_NE.dtype != b_ME.dtype:
        raise ValueError(f"rows are {a_NE.dtype} and columns {b_ME.dtype}")
    if a_NE.dtype == torch.float16:  # gradients of probabilities are too small for it
        a_NE, b_ME = a_NE.float(), b_ME.float()
    exact = accumulator(a_NE.dtype)
    scale = scale.reshape(()).to(a_NE.device, exact)
    bias = None if bias is None else bias.reshape(()).to(a_NE.device, exact)
    if kind == "cpu" and a_NE.shape[0] * b_ME.shape[0] <= FEW and chosen(a_NE.device) == "cpu":
        groups = (group_N, group_M, group_N, group_M)  # serve as ids, and nothing is counted
        with torch.autocast(kind, enabled=False):
            return losses(Pairs(a_NE, b_ME, *groups, row_N, column_M, scale, bias, both))
    id_N, id_M = ranks(group_N, group_M)
    count_N = positives(id_N, id_M, column_M)
    count_M = positives(id_M, id_N, row_N) if both else count_N[:0]
    loss_N, loss_M, _, _ = contrast(
        a_NE, b_ME, id_N, id_M, count_N, count_M, row_N, column_M, scale, bias, both
    )
    return loss_N, loss_M
