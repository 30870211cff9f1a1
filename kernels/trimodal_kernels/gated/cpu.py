"""The gated activation on a CPU, where new memory costs more than what is computed into it.

y_TF = gated(gate_TF, up_TF)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1 << 18
"""Numbers from which on it pays; below, what is written down stays in the cache."""


def gated(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """See `trimodal_kernels.gated.gated`; plain torch where recomputing does not pay."""
    if not (torch.is_grad_enabled() and (gate_TF.requires_grad or up_TF.requires_grad)):
        return F.silu(gate_TF).mul_(up_TF)
    if pays(gate_TF):
        return Gated.apply(gate_TF, up_TF)
    return F.silu(gate_TF) * up_TF


def pays(gate: Tensor) -> bool:
    """Whether to recompute is faster; in 16 bits the second exponential costs more."""
    return gate.element_size() >= 4 and gate.numel() >= LEAST


class Gated(torch.autograd.Function):
    """silu(gate) * up, with as few passes that write new memory as there are results."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """See `gated`."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradients of both."""
        gate, up = ctx.saved_tensors
        grad_gate = grads[0] * up
        torch.ops.aten.silu_backward.grad_input(grad_gate, gate, grad_input=grad_gate)
        return grad_gate, F.silu(gate).mul_(grads[0])
