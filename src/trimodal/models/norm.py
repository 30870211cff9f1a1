"""The norm of every block, head and stack.

x_TD = RMSNorm(width)(x_TD)
"""

import torch
from torch import Tensor, nn

EPS = 1e-6
"""Of every norm."""
_EPS = torch.tensor(EPS)


class RMSNorm(nn.RMSNorm):
    """Root mean square layer normalisation (Zhang and Sennrich, 2019), with `EPS`."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D).

        PyTorch's own makes passes over memory that a short text on a CPU would feel. Training does
        not come here, whose passes without and with a gradient must agree to the last bit.
        """
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return super().forward(x)
        if not x.is_cpu or x.element_size() < 4:
            return super().forward(x)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.addcmul(_EPS, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (x * inverse).mul_(self.weight)
