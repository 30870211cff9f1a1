"""Which implementation of an operation runs: by the device, or as TRIMODAL_KERNELS says.

if chosen(q_THK.device) == "triton": ...
"""

import os
from functools import cache
from typing import Literal

import torch

VARIABLE = "TRIMODAL_KERNELS"
LEAST_CAPABILITY = (8, 0)
"""Of CUDA devices; older ones have no bfloat16 in their matrix units."""

Implementation = Literal["reference", "cpu", "triton"]


def chosen(device: torch.device) -> Implementation:
    """The implementation for tensors on `device`.

    The variable is `auto`, the default: Triton on CUDA, the CPU's own on a CPU, and the reference
    on what is left; or `reference` or `triton` on every device, to compare them. On a CPU, Triton
    runs in its interpreter, for tests.

    Raises:
        ValueError: the variable has another value.
    """
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted == "reference" or wanted == "triton":
        return wanted
    if wanted != "auto":
        raise ValueError(f"{VARIABLE}: is auto, reference or triton, not {wanted}")
    if device.type == "cpu":
        return "cpu"
    return "triton" if device.type == "cuda" and _is_supported(device.index or 0) else "reference"


@cache
def _is_supported(index: int) -> bool:
    return torch.cuda.get_device_capability(index) >= LEAST_CAPABILITY
