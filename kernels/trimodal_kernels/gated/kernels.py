"""The gated activation in Triton: one pass over the inputs each way.

y_TF = forward(gate_TF, up_TF)
"""

# pyright: reportMissingParameterType=false, reportCallIssue=false

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from trimodal_kernels.aot import Build

BLOCK, WARPS = 2048, 4
STEP = 8
"""Numbers that are read at once, if their count is a multiple of it."""


@triton.jit
def _load(X, size, ACC: tl.constexpr, UPCAST: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(X + at, mask=at < size, other=0.0)
    if UPCAST:
        x = x.to(tl.float32)
    return x.to(ACC)


@triton.jit
def _store(X, x, size, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(X + at, x.to(X.dtype.element_ty), mask=at < size)


@triton.jit(do_not_specialize=["size"])
def gated_forward(
    GATE, UP, OUT, size,
    STEP: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """OUT = silu(GATE) * UP."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    left = size // STEP * STEP - start  # tells the compiler that it is a multiple
    gate = _load(GATE + start, left, ACC, UPCAST, BLOCK)
    up = _load(UP + start, left, ACC, UPCAST, BLOCK)
    _store(OUT + start, gate / (1 + tl.exp(-gate)) * up, left, BLOCK)


@triton.jit(do_not_specialize=["size"])
def gated_backward(
    GATE, UP, GRAD, GRAD_GATE, GRAD_UP, size,
    STEP: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of both inputs."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    left = size // STEP * STEP - start
    gate = _load(GATE + start, left, ACC, UPCAST, BLOCK)
    up = _load(UP + start, left, ACC, UPCAST, BLOCK)
    grad = _load(GRAD + start, left, ACC, UPCAST, BLOCK)
    share = 1 / (1 + tl.exp(-gate))
    grad_gate = grad * up * share * (1 + gate * (1 - share))
    _store(GRAD_GATE + start, grad_gate, left, BLOCK)
    _store(GRAD_UP + start, grad * gate * share, left, BLOCK)


def forward(gate_TF: Tensor, up_TF: Tensor, block: int = BLOCK) -> Tensor:
    """See `gated`."""
    gate_TF, up_TF = gate_TF.contiguous(), up_TF.contiguous()
    out_TF = torch.empty_like(gate_TF)
    size = gate_TF.numel()
    if size:
        gated_forward[(triton.cdiv(size, block),)](
            gate_TF, up_TF, out_TF, size, **_constants(gate_TF, block), num_warps=WARPS
        )
    return out_TF


def backward(
    gate_TF: Tensor, up_TF: Tensor, grad_TF: Tensor, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """The gradients of both inputs."""
    gate_TF, up_TF, grad_TF = gate_TF.contiguous(), up_TF.contiguous(), grad_TF.contiguous()
    grad_gate_TF, grad_up_TF = torch.empty_like(gate_TF), torch.empty_like(up_TF)
    size = gate_TF.numel()
    if size:
        gated_backward[(triton.cdiv(size, block),)](
            gate_TF, up_TF, grad_TF, grad_gate_TF, grad_up_TF, size,
            **_constants(gate_TF, block), num_warps=WARPS,
        )  # fmt: skip
    return grad_gate_TF, grad_up_TF


def _constants(x: Tensor, block: int) -> dict[str, object]:
    return {
        "STEP": STEP if x.numel() % STEP == 0 else 1,
        "ACC": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "UPCAST": knobs.runtime.interpret and x.element_size() < 4,
        "BLOCK": block,
    }


def builds(arch: int) -> Iterator[Build]:
    """What is shipped."""
    for name in ("bf16", "fp32"):
        for kernel in (gated_forward, gated_backward):
            constants = {"STEP": STEP, "ACC": tl.float32, "UPCAST": False, "BLOCK": BLOCK}
            pointers = [argument for argument in kernel.arg_names if argument not in constants]
            signature = dict.fromkeys(pointers, f"*{name}") | {"size": "i32"}
            title = f"gated.{kernel.__name__.removeprefix('gated_')}[{name}]"
            yield Build(title, kernel, signature, constants, WARPS, 1, matrix=False)
