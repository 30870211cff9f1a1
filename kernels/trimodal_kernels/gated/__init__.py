"""The activation of a gated MLP, of which only the two inputs are kept for backward.

y_TF = gated(gate_TF, up_TF)
"""

import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.dispatch import chosen
from trimodal_kernels.gated import cpu
from trimodal_kernels.gated.operator import gated as operator


def gated(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer, 2020, SwiGLU).

    silu(gate) is computed again in backward instead of being kept.

    Args:
        gate_TF: of any shape.
        up_TF: of the same shape and type.

    Raises:
        ValueError: shapes or types differ.
    """
    if gate_TF.shape != up_TF.shape or gate_TF.dtype != up_TF.dtype:
        of = f"{tuple(gate_TF.shape)} of {gate_TF.dtype}"
        raise ValueError(f"a gate {of} for {tuple(up_TF.shape)} of {up_TF.dtype}")
    path = chosen(gate_TF.device)
    if path == "triton":
        return operator(gate_TF, up_TF)
    if path == "cpu":
        return cpu.gated(gate_TF, up_TF)
    return reference_gated(gate_TF, up_TF)


def reference_gated(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """See `gated`."""
    return F.silu(gate_TF) * up_TF
