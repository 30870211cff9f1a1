"""Losses and gradient of a few rows of logits in Triton, in the memory of the logits.

softmax_(logits_RV, target_R, loss_R, label_smoothing, z_loss, grades=True)
"""

# pyright: reportMissingParameterType=false, reportCallIssue=false, reportArgumentType=false

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from trimodal_kernels.aot import Build
from trimodal_kernels.linear_cross_entropy.chunked import ALIGNMENT

NUMBERS = 1 << 28
"""Logits at once, half a gigabyte in bf16. The gradient of the weight is read and written for each
chunk, so fewer are faster."""
LEAST_ROWS = 128


class Launch(NamedTuple):
    """How much of a row a program reads at once, and with how many warps."""

    block: int
    num_warps: int


NARROW, WIDE = Launch(1024, 4), Launch(4096, 8)
STAGES = 2


def rows_at_once(num_outputs: int) -> int:
    """Rows of as many outputs that are computed at once; a multiple of a tile of the products."""
    return max(LEAST_ROWS, NUMBERS // max(1, num_outputs) // LEAST_ROWS * LEAST_ROWS)


@triton.jit
def _load(LOGITS, at, num_outputs, end, ACC: tl.constexpr, UPCAST: tl.constexpr):
    """Some logits of a row, -inf beyond them. The interpreter does not compute in bfloat16."""
    x = tl.load(LOGITS + at, mask=at < end, other=0.0)
    if UPCAST:
        x = x.to(tl.float32)
    return tl.where(at < num_outputs, x.to(ACC), -float("inf"))


@triton.jit(do_not_specialize=["stride", "num_outputs"])
def row_softmax(
    LOGITS, TARGET, LOSS, stride, num_outputs, smoothing, z_loss,
    STEP: tl.constexpr, GRADES: tl.constexpr, SMOOTH: tl.constexpr, ACC: tl.constexpr,
    UPCAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row: the denominator block by block (Milakov and Gimelshein, 2018), then the gradient."""
    row = tl.program_id(0).to(tl.int64)
    smoothing, z_loss = tl.cast(smoothing, ACC), tl.cast(z_loss, ACC)
    # tells the compiler that rows begin and end at multiples; what lies between is never counted
    LOGITS += row * (stride // STEP) * STEP
    end = (num_outputs + STEP - 1) // STEP * STEP
    target = tl.load(TARGET + row)
    known = (target >= 0) & (target < num_outputs)
    # read before any thread overwrites it: the reductions below wait for all of them
    right = tl.load(LOGITS + tl.where(known, target, 0))
    if UPCAST:
        right = right.to(tl.float32)
    right = right.to(ACC)
    top = tl.full([], -float("inf"), ACC)
    total = tl.zeros([], ACC)
    everything = tl.zeros([], ACC)
    for start in range(0, num_outputs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = _load(LOGITS, at, num_outputs, end, ACC, UPCAST)
        new = tl.maximum(top, tl.max(x, 0))
        total = total * tl.exp(top - new) + tl.sum(tl.exp(x - new), 0)
        top = new
        if SMOOTH:
            everything += tl.sum(tl.where(at < num_outputs, x, 0.0), 0)
    log_total = top + tl.log(total)
    loss = log_total - (1 - smoothing) * right - smoothing * (everything / num_outputs)
    loss += z_loss * log_total * log_total
    tl.store(LOSS + row, tl.where(known, loss, float("nan")))
    if GRADES:
        scale = (1 + 2 * z_loss * log_total) / total
        for start in range(0, num_outputs, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = _load(LOGITS, at, num_outputs, end, ACC, UPCAST)
            grad = tl.exp(x - top) * scale - smoothing / num_outputs
            grad = tl.where(at == target, grad - (1 - smoothing), grad)
            tl.store(LOGITS + at, grad.to(LOGITS.dtype.element_ty), mask=at < end)


def softmax_(
    logits_RV: Tensor,
    target_R: Tensor,
    loss_R: Tensor,
    label_smoothing: float,
    z_loss: float,
    grades: bool,
    launch: Launch | None = None,
) -> None:
    """See `Softmax`; rows begin at multiples of `ALIGNMENT`."""
    num_rows, num_outputs = logits_RV.shape
    if not num_rows:
        return
    if logits_RV.stride(0) % ALIGNMENT:
        raise ValueError(f"rows of {logits_RV.stride(0)} numbers do not begin at multiples of 16")
    if launch is None:
        launch = NARROW if num_outputs <= NARROW.block else WIDE
    row_softmax[(num_rows,)](
        logits_RV, target_R.contiguous(), loss_R, logits_RV.stride(0), num_outputs,
        label_smoothing, z_loss,
        **_constants(
            launch, grades, label_smoothing > 0,
            tl.float64 if loss_R.dtype == torch.float64 else tl.float32,
            upcast=knobs.runtime.interpret and logits_RV.element_size() < 4,
        ),
        num_warps=launch.num_warps, num_stages=STAGES,
    )  # fmt: skip


def _constants(
    launch: Launch, grades: bool, smooth: bool, acc: tl.dtype, *, upcast: bool
) -> dict[str, object]:
    return {
        "STEP": ALIGNMENT,
        "GRADES": grades,
        "SMOOTH": smooth,
        "ACC": acc,
        "UPCAST": upcast,
        "BLOCK": launch.block,
    }


def builds(arch: int) -> Iterator[Build]:
    """What is shipped."""
    for name in ("bf16", "fp32"):
        signature = {
            "LOGITS": f"*{name}", "TARGET": "*i64", "LOSS": "*fp32", "stride": "i32",
            "num_outputs": "i32", "smoothing": "fp32", "z_loss": "fp32",
        }  # fmt: skip
        for launch in (NARROW, WIDE):
            for grades in (True, False):
                yield Build(
                    f"linear_cross_entropy[{name},{launch.block}{',gradient' if grades else ''}]",
                    row_softmax,
                    signature,
                    _constants(launch, grades, True, tl.float32, upcast=False),
                    launch.num_warps,
                    STAGES,
                    matrix=False,
                )
