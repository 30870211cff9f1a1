"""Rows about attention on a CPU: bfloat16 against PyTorch's own, and how exact it is.

rows = attention_rows(rounds=9)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.bench.timing import Row, compare, medians
from trimodal_kernels import Segments, packed_attention

SHAPES = ((77, 8, 2.0), (197, 4, 2.0), (256, 4, 2.0), (500, 2, 1.3))
"""Length, segments, and how many times as fast as PyTorch's own attention it must be."""
HEADS, WIDTH = 12, 64
LEAST_EXACT = 1 / 1.5


def attention_rows(rounds: int) -> list[Row]:
    """Forward and backward of segments of one length, in bfloat16 and, without a gate, in fp32."""
    rows = []
    for length, count, gate in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            rows += _rows(length, count, dtype, gate if dtype == torch.bfloat16 else None, rounds)
    return rows


def _rows(
    length: int, count: int, dtype: torch.dtype, gate: float | None, rounds: int
) -> list[Row]:
    q, k, v, grad = torch.randn(4, count * length, HEADS, WIDTH).to(dtype).unbind(0)
    segments = Segments.from_lengths([length] * count)
    given = [x.clone().requires_grad_() for x in (q, k, v)]
    dense = [_split(x, count).clone().requires_grad_() for x in (q, k, v)]
    grad_dense = _split(grad, count)

    def ours() -> tuple[Tensor, ...]:
        q, k, v = given
        return torch.autograd.grad(packed_attention(q, k, v, segments), given, grad)

    def theirs() -> tuple[Tensor, ...]:
        return _by_pytorch(dense, grad_dense)

    exact = [x.detach().double().requires_grad_() for x in dense]
    wanted = _by_pytorch(exact, grad_dense.double())
    errors = [_error(found, wanted) for found in ([_split(x, count) for x in ours()], theirs())]
    times = medians({"ours": ours, "theirs": theirs}, rounds)
    label = f"attention, {str(dtype).removeprefix('torch.')}, L={length}, forward and backward"
    return [
        compare(
            f"{label}, against scaled_dot_product_attention", times["ours"], times["theirs"], gate
        ),
        compare(
            f"{label}, error of the gradients to fp64",
            errors[0],
            errors[1],
            LEAST_EXACT,
            "relative",
        ),
    ]


def _by_pytorch(inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    q, k, v = inputs
    return torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), inputs, grad)


def _split(x_THK: Tensor, count: int) -> Tensor:
    """(N, H, L, K) of segments of one length."""
    return x_THK.unflatten(0, (count, -1)).transpose(1, 2)


def _error(found: list[Tensor] | tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest of the relative errors."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)
