"""`trimodal::gated` and `trimodal::gated_backward`, for devices on which Triton runs.

y_TF = gated(gate_TF, up_TF)
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("trimodal::gated", mutates_args=())
def gated(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """See `trimodal_kernels.gated.gated`."""
    from trimodal_kernels.gated import kernels

    return kernels.forward(gate_TF, up_TF)


@torch.library.custom_op("trimodal::gated_backward", mutates_args=())
def gated_backward(gate_TF: Tensor, up_TF: Tensor, grad_TF: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both inputs."""
    from trimodal_kernels.gated import kernels

    return kernels.backward(gate_TF, up_TF, grad_TF)


@gated.register_fake
def _(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    return torch.empty_like(gate_TF, memory_format=torch.contiguous_format)


@gated_backward.register_fake
def _(gate_TF: Tensor, up_TF: Tensor, grad_TF: Tensor) -> tuple[Tensor, Tensor]:
    made = torch.empty_like(gate_TF, memory_format=torch.contiguous_format)
    return made, torch.empty_like(made)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_TF: Tensor) -> tuple[Tensor, Tensor]:
    return gated_backward(*ctx.saved_tensors, grad_TF)


gated.register_autograd(_backward, setup_context=_setup)
