"""Attention by others, on the segments that ours is measured on.

run, packed = PEERS["varlen_attn"](problem)
grads = packed(run())
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trimodal.bench.workloads import Problem
from trimodal_kernels import packed_attention

Tensors = tuple[Tensor, ...]
Run = Callable[[], Tensors]
"""Forward and backward; the gradients of queries, keys and values, laid out as the peer likes."""
Packed = Callable[[Tensors], Tensors]
"""The same as (T, H, K)."""
Attention = Callable[..., Tensor]
BUCKETS = 16
CUDNN = "padded SDPA, cuDNN"
MASKED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def ours(problem: Problem) -> tuple[Run, Packed]:
    """Packed attention of this project."""
    return _packed(problem, lambda q, k, v: packed_attention(q, k, v, problem.segments))


def varlen(problem: Problem) -> tuple[Run, Packed]:
    """`torch.nn.attention.varlen.varlen_attn`, which is FlashAttention 2."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = torch.tensor([0, *accumulate(problem.lengths)], dtype=torch.int32)
    bounds, longest = bounds.to(problem.grad.device), max(problem.lengths)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = varlen_attn(q, k, v, bounds, bounds, longest, longest)
        assert isinstance(out, Tensor)  # noqa: S101 - nothing else was asked for
        return out

    return _packed(problem, attend)


def flex(problem: Problem) -> tuple[Run, Packed]:
    """Compiled FlexAttention with a document mask that is there already."""
    from torch.nn.attention.flex_attention import create_block_mask

    device, size = problem.grad.device, sum(problem.lengths)
    document_T = torch.arange(len(problem.lengths), device=device).repeat_interleave(
        torch.tensor(problem.lengths, device=device)
    )

    def same(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return document_T[q] == document_T[k]

    mask = create_block_mask(same, None, None, size, size, device=str(device), _compile=True)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return _compiled_flex()(q, k, v, block_mask=mask)[0].transpose(0, 1)

    return _packed(problem, attend)


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _packed(problem: Problem, attend: Attention) -> tuple[Run, Packed]:
    given = [x.clone().requires_grad_() for x in problem.inputs]
    return lambda: torch.autograd.grad(attend(*given), given, problem.grad), lambda grads: grads


def padded(backend: SDPBackend | None = None) -> Callable[[Problem], tuple[Run, Packed]]:
    """PyTorch's own attention over (N, H, L, K), padded to the longest segment, with a key mask.

    Args:
        backend: None for the one that PyTorch chooses, without cuDNN where there is a mask.
    """
    return lambda problem: _padded(problem, [list(range(len(problem.lengths)))], backend)


def bucketed(problem: Problem) -> tuple[Run, Packed]:
    """The same, segments sorted by length into 16 buckets, each padded to its own longest one."""
    order = sorted(range(len(problem.lengths)), key=problem.lengths.__getitem__)
    size = -(-len(order) // BUCKETS)
    return _padded(problem, [order[i : i + size] for i in range(0, len(order), size)], None)


def _padded(
    problem: Problem, buckets: Sequence[Sequence[int]], backend: SDPBackend | None
) -> tuple[Run, Packed]:
    """What a model over padded batches would have: padding it is not part of the time."""
    starts = [0, *accumulate(problem.lengths)]
    blocks = [_Block(problem, bucket, starts) for bucket in buckets]

    def run() -> Tensors:
        return tuple(grad for block in blocks for grad in block.gradients(backend))

    def packed(grads: Tensors) -> Tensors:
        found = tuple(torch.empty_like(x) for x in problem.inputs)
        for i, block in enumerate(blocks):
            for x_THK, grad_NHLK in zip(found, grads[3 * i : 3 * i + 3], strict=True):
                x_THK[block.place_T] = grad_NHLK.transpose(1, 2)[block.inside_NL]
        return found

    return run, packed


class _Block:
    """Segments as one dense block."""

    def __init__(self, problem: Problem, chosen: Iterable[int], starts: Sequence[int]) -> None:
        device = problem.grad.device
        chosen = list(chosen)
        sizes = torch.tensor([problem.lengths[i] for i in chosen], device=device)
        first = torch.tensor([starts[i] for i in chosen], device=device)
        column_L = torch.arange(int(sizes.max()), device=device)
        self.inside_NL = column_L < sizes[:, None]
        place_NL = first[:, None] + column_L
        self.place_T = place_NL[self.inside_NL]
        whole = bool(self.inside_NL.all())
        # where nothing is padded there is no mask, which leaves PyTorch its fastest kernels
        self.mask = None if whole else self.inside_NL[:, None, None]
        laid = place_NL.where(self.inside_NL, 0)
        q, k, v, grad = (
            (x[laid] * self.inside_NL[:, :, None, None]).transpose(1, 2)
            for x in (*problem.inputs, problem.grad)
        )
        self.given = [x.contiguous().requires_grad_() for x in (q, k, v)]
        self.grad = grad.contiguous()

    def gradients(self, backend: SDPBackend | None) -> Tensors:
        q, k, v = self.given
        with _choice(self.mask, backend):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
            return torch.autograd.grad(out, self.given, self.grad)


def _choice(mask: Tensor | None, backend: SDPBackend | None) -> AbstractContextManager[Any]:
    """What may compute it: PyTorch's own choice, which for a mask is not to be cuDNN.

    That is a plan for each new shape, tens to hundreds of milliseconds; it has a peer of its own.
    """
    if backend is None and mask is None:
        return nullcontext()
    return sdpa_kernel(MASKED if backend is None else backend)


PEERS: dict[str, Callable[[Problem], tuple[Run, Packed]]] = {
    "padded SDPA": padded(),
    CUDNN: padded(SDPBackend.CUDNN_ATTENTION),
    "padded SDPA, flash": padded(SDPBackend.FLASH_ATTENTION),
    "padded SDPA, efficient": padded(SDPBackend.EFFICIENT_ATTENTION),
    "bucketed SDPA": bucketed,
    "FlexAttention": flex,
    "varlen_attn": varlen,
}
"""By name; which of them run depends on device, type and shapes."""
