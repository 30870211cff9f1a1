"""Queries and keys before they meet: RMS-normalised, then rotated.

x_THK = turn(x_THK, weight_K, cos_Tk, sin_Tk, eps)
"""

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


class Turned:
    """The same without a graph, with what its gradient needs.

    Weights are folded into the angles, which are the same for all heads.
    """

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

    def forward(self) -> Tensor:
        """(T, H, K), what `turn` gives."""
        if self.angles is None:
            return self.unit_THK if self.weight_K is None else self.unit_THK * self.weight_K
        half = self.unit_THK.shape[-1] // 2
        (cos, sin), (a, b) = self.angles, self.unit_THK.split(half, -1)
        weight_a, weight_b = (1.0, 1.0) if self.weight_K is None else self.weight_K.split(half)
        out_THK = torch.empty_like(self.unit_THK, memory_format=torch.contiguous_format)
        torch.mul(a, cos * weight_a, out=out_THK[..., :half]).addcmul_(b, sin * weight_b, value=-1)
        torch.mul(b, cos * weight_b, out=out_THK[..., half:]).addcmul_(a, sin * weight_a)
        return out_THK

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
