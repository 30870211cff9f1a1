"""Queries and keys before they meet: RMS-normalised, then rotated.

x_THK = turn(x_THK, weight_K, cos_Tk, sin_Tk, eps)
q_THK, k_THK = turn_pair(q_THK, k_THK, (q_weight_K, k_weight_K), (cos_Tk, sin_Tk), eps)
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def turn(
    x_THK: Tensor, weight_K: Tensor | None, cos_Tk: Tensor | None, sin_Tk: Tensor | None, eps: float
) -> Tensor:
    """Normalise (Zhang and Sennrich, 2019) and turn pairs (i, i + K/2) (Su et al., 2021).

    In fp32 at least, rounded once to the type of `x_THK`.
    """
    dtype, exact = x_THK.dtype, torch.promote_types(x_THK.dtype, torch.float32)
    x_THK = x_THK.to(exact)
    if weight_K is not None:
        inverse = torch.rsqrt(x_THK.square().mean(-1, keepdim=True) + eps)
        x_THK = x_THK * inverse * weight_K
    if cos_Tk is not None and sin_Tk is not None:
        a, b = x_THK.chunk(2, dim=-1)
        cos, sin = (angle[:, None].to(exact) for angle in (cos_Tk, sin_Tk))
        x_THK = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    return x_THK.to(dtype)


def turn_pair(
    q_THK: Tensor,
    k_THK: Tensor,
    weights: tuple[Tensor, Tensor] | None,
    rotary: tuple[Tensor, Tensor] | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """What `turn` gives of queries and of keys in as few operations, in fp32 at least.

    Without a graph: what autograd would need is written over. A short text on a CPU feels each
    operation. Weights are folded into the angles, which are the
    same for all heads. `Turned` is its backward pass.
    """
    if weights is None and rotary is None:
        exact = torch.promote_types(q_THK.dtype, torch.float32)
        return q_THK.to(exact), k_THK.to(exact)
    if q_THK.shape != k_THK.shape:
        q_weights, k_weights = ((), ()) if weights is None else ((weight,) for weight in weights)
        q, k = _turned((q_THK,), q_weights, rotary, eps), _turned((k_THK,), k_weights, rotary, eps)
        return q[0], k[0]
    q, k = _turned((q_THK, k_THK), weights or (), rotary, eps)
    return q, k


def _turned(
    parts: Sequence[Tensor],
    weights: Sequence[Tensor],
    rotary: tuple[Tensor, Tensor] | None,
    eps: float,
) -> Tensor:
    x_STHK = torch.stack(tuple(parts))
    exact = torch.promote_types(x_STHK.dtype, torch.float32)
    x_STHK, weight_S1K = x_STHK.to(exact), None
    if weights:
        norm = torch.linalg.vector_norm(x_STHK, dim=-1, keepdim=True)
        x_STHK.mul_(norm.square_().div_(x_STHK.shape[-1]).add_(eps).rsqrt_())
        weight_S1K = torch.stack(tuple(weights)).to(exact)[:, None]
    if rotary is None:
        return x_STHK if weight_S1K is None else x_STHK.mul_(weight_S1K[:, None])
    half = x_STHK.shape[-1] // 2
    cos, sin = (angle.to(exact) for angle in rotary)
    cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    if weight_S1K is not None:
        cos, sin = cos * weight_S1K, sin * weight_S1K.roll(half, -1)
    turned_STHK = x_STHK.roll(half, -1).mul_(sin[..., None, :])
    return turned_STHK.addcmul_(x_STHK, cos[..., None, :])


class Turned:
    """The gradient of `turn`, without a graph."""

    def __init__(
        self,
        x_THK: Tensor,
        weight_K: Tensor | None,
        cos_Tk: Tensor | None,
        sin_Tk: Tensor | None,
        eps: float,
    ) -> None:
        self.weight_K = None if weight_K is None else weight_K.to(x_THK.dtype)
        self.inverse_TH1: Tensor | None = None
        self.unit_THK = x_THK
        if weight_K is not None:
            norm = torch.linalg.vector_norm(x_THK, dim=-1, keepdim=True)
            inverse_TH1 = norm.square_().div_(x_THK.shape[-1]).add_(eps).rsqrt_()
            self.inverse_TH1, self.unit_THK = inverse_TH1, x_THK * inverse_TH1
        self.angles: tuple[Tensor, Tensor] | None = None
        if cos_Tk is not None and sin_Tk is not None:
            self.angles = cos_Tk.to(x_THK.dtype)[:, None], sin_Tk.to(x_THK.dtype)[:, None]

    def backward(self, grad_THK: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradients of what was given and of the weight, from that of the result."""
        if self.angles is not None:
            half = grad_THK.shape[-1] // 2
            (cos, sin), (a, b) = self.angles, grad_THK.split(half, -1)
            back_THK = torch.empty_like(grad_THK)
            torch.mul(a, cos, out=back_THK[..., :half]).addcmul_(b, sin)
            torch.mul(b, cos, out=back_THK[..., half:]).addcmul_(a, sin, value=-1)
            grad_THK = back_THK
        if self.weight_K is None or self.inverse_TH1 is None:
            return grad_THK, None
        exact = torch.promote_types(grad_THK.dtype, torch.float32)
        grad_weight_K = (grad_THK * self.unit_THK).sum((0, 1), dtype=exact)
        grad_THK = grad_THK * self.weight_K
        along_TH1 = (grad_THK * self.unit_THK).mean(-1, keepdim=True)
        grad_THK.addcmul_(self.unit_THK, along_TH1, value=-1)
        return grad_THK.mul_(self.inverse_TH1), grad_weight_K
