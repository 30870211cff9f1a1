"""The losses by the matrix of all products: short, slow and large.

loss_N, loss_M = losses(pairs)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.contrastive.pairs import Gradients, Losses, Pairs


def losses(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Of rows and, if they are wanted, of columns; torch differentiates through this by itself."""
    logits_NM, same_NM = _logits(pairs)
    loss = _softmax if pairs.bias is None else _sigmoid
    loss_N = loss(logits_NM, same_NM, pairs.column_M)
    if not pairs.both:
        return loss_N, loss_N.new_zeros(0)
    return loss_N, loss(logits_NM.T, same_NM.T, pairs.row_N)


def _logits(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """(N, M), and which pairs are positive."""
    logits_NM = (pairs.a_NE.to(pairs.exact) * pairs.scale) @ pairs.b_ME.to(pairs.exact).T
    if pairs.bias is not None:
        logits_NM = logits_NM + pairs.bias
    return logits_NM, pairs.id_N[:, None] == pairs.id_M


def _softmax(logits_NM: Tensor, same_NM: Tensor, column_M: Tensor | None) -> Tensor:
    if column_M is not None:
        logits_NM = logits_NM.masked_fill(~column_M, torch.finfo(logits_NM.dtype).min)
        same_NM = same_NM & column_M
    log_p_NM = logits_NM.log_softmax(1)
    return -log_p_NM.where(same_NM, 0.0).sum(1) / same_NM.sum(1).clamp_min(1)


def _sigmoid(logits_NM: Tensor, same_NM: Tensor, column_M: Tensor | None) -> Tensor:
    loss_NM = -F.logsigmoid(logits_NM.where(same_NM, -logits_NM))
    return (loss_NM if column_M is None else loss_NM.where(column_M, 0.0)).sum(1)


def forward(pairs: Pairs) -> Losses:
    """The losses with empty states."""
    states = (pairs.a_NE.new_zeros((2, len(x)), dtype=pairs.exact) for x in pairs[:2])
    return Losses(*losses(pairs), *states)


def backward(pairs: Pairs, grad_N: Tensor, grad_M: Tensor) -> Gradients:
    """The gradients of what `forward` gives, weighted by `grad_N` and `grad_M`."""
    logits_NM, same_NM = _logits(pairs)
    slope = _softmax_slope if pairs.bias is None else _sigmoid_slope
    grad_NM = grad_N[:, None] * slope(logits_NM, same_NM, pairs.column_M)
    if pairs.both:
        grad_NM = grad_NM + grad_M * slope(logits_NM.T, same_NM.T, pairs.row_N).T
    a_NE, b_ME = pairs.a_NE.to(pairs.exact), pairs.b_ME.to(pairs.exact)
    unscaled_NE = grad_NM @ b_ME
    return Gradients(
        (pairs.scale * unscaled_NE).to(pairs.a_NE.dtype),
        (pairs.scale * (grad_NM.T @ a_NE)).to(pairs.b_ME.dtype),
        (a_NE * unscaled_NE).sum(),
        torch.zeros_like(pairs.scale) if pairs.bias is None else grad_NM.sum(),
    )


def _softmax_slope(logits_NM: Tensor, same_NM: Tensor, column_M: Tensor | None) -> Tensor:
    """The derivative of each row's loss by its logits."""
    if column_M is not None:
        logits_NM = logits_NM.masked_fill(~column_M, -torch.inf)
        same_NM = same_NM & column_M
    count_N1 = same_NM.sum(1, keepdim=True)
    wanted_NM = same_NM.to(logits_NM.dtype) / count_N1.clamp_min(1)
    return (logits_NM.softmax(1) - wanted_NM).where(count_N1 > 0, 0.0)


def _sigmoid_slope(logits_NM: Tensor, same_NM: Tensor, column_M: Tensor | None) -> Tensor:
    slope_NM = torch.where(same_NM, -(-logits_NM).sigmoid(), logits_NM.sigmoid())
    return slope_NM if column_M is None else slope_NM.where(column_M, 0.0)
