"""Rows about losses: contrast without its matrix, cross-entropy without its logits.

rows = loss_rows(torch.device("cuda"), rounds=9)
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trimodal.bench.ragged import difference, missing
from trimodal.bench.timing import Row, compare, medians
from trimodal.errors import NumericError
from trimodal_kernels import info_nce_two_sided, linear_cross_entropy

Gradients = tuple[Tensor, ...]
Ways = dict[str, Callable[[], Gradients]]
CHUNK = 1024
"""Rows of logits at a time of the chunked cross-entropy."""
MASKED = 0.15


@dataclass(frozen=True)
class LossSizes:
    """How large the problems are."""

    samples: int
    embedding: int
    tokens: int
    width: int
    vocabulary: int


SIZES = {
    "cuda": LossSizes(32_768, 512, 16_384, 1024, 131_072),
    "cpu": LossSizes(2048, 512, 2048, 256, 16_384),
}
"""By kind of device."""
TOLERANCE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
"""Largest relative difference of gradients between two ways."""


def loss_rows(device: torch.device, rounds: int, sizes: LossSizes | None = None) -> list[Row]:
    """Forward and backward of both losses; times, and on a GPU memory."""
    sizes = sizes or SIZES[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return [
        *_contrast_rows(device, dtype, rounds, sizes),
        *_vocabulary_rows(device, dtype, rounds, sizes),
    ]


def _contrast_rows(
    device: torch.device, dtype: torch.dtype, rounds: int, sizes: LossSizes
) -> list[Row]:
    gates = {"eager, matrix kept": 2.0, "compiled, matrix kept": 1.2} if dtype.itemsize < 4 else {}
    ways = contrast_ways(device, dtype, sizes)
    label = f"InfoNCE, {sizes.samples} pairs of {sizes.embedding}, forward and backward"
    return _rows(label, ways, dtype, gates, rounds, device, least_memory=10.0)


def contrast_ways(device: torch.device, dtype: torch.dtype, sizes: LossSizes) -> Ways:
    """Both directions of one pair of modalities, each sample its own positive."""
    a, b = (
        F.normalize(torch.randn(sizes.samples, sizes.embedding, device=device), dim=-1)
        .to(dtype)
        .requires_grad_()
        for _ in range(2)
    )
    scale = torch.tensor(50.0, device=device, requires_grad=True)
    group_N = torch.arange(sizes.samples, device=device)
    given = (a, b, scale)

    def ours() -> Gradients:
        a_N, b_N = info_nce_two_sided(a, b, group_N, group_N, scale)
        return torch.autograd.grad((a_N.mean() + b_N.mean()) / 2, given)

    def kept(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """As open_clip's ClipLoss does: two products, two cross-entropies."""
        a_NM, b_NM = scale.to(a.dtype) * a @ b.T, scale.to(a.dtype) * b @ a.T
        return (F.cross_entropy(a_NM, group_N) + F.cross_entropy(b_NM, group_N)) / 2

    compiled = torch.compile(kept)
    ways: Ways = {
        "ours": ours,
        "eager, matrix kept": lambda: torch.autograd.grad(kept(*given), given),
        "compiled, matrix kept": lambda: torch.autograd.grad(compiled(*given), given),
    }
    clip = _imported("open_clip.loss", "ClipLoss")
    if clip is not None:
        module: Callable[..., Tensor] = clip()
        ways["open_clip"] = lambda: torch.autograd.grad(module(a, b, scale), given)
    tiled = _imported("inf_cl", "cal_inf_loss") if device.type == "cuda" else None
    if tiled is not None:
        ways["inf_cl"] = lambda: torch.autograd.grad(
            (tiled(a, b, scale=scale) + tiled(b, a, scale=scale)) / 2, given
        )
    return ways


def _vocabulary_rows(
    device: torch.device, dtype: torch.dtype, rounds: int, sizes: LossSizes
) -> list[Row]:
    ways = vocabulary_ways(device, dtype, sizes)
    gates = {"chunks of all rows": 3.0} if device.type == "cuda" else {}
    label = f"cross-entropy over {sizes.vocabulary} ids, {sizes.tokens} tokens, {MASKED:.0%} masked"
    return _rows(label, ways, dtype, gates, rounds, device, least_memory=None)


def vocabulary_ways(device: torch.device, dtype: torch.dtype, sizes: LossSizes) -> Ways:
    """A head over all ids; only masked tokens count."""
    h = torch.randn(sizes.tokens, sizes.width, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(sizes.vocabulary, sizes.width, device=device, dtype=dtype) * 0.02
    weight.requires_grad_()
    target_T = torch.randint(sizes.vocabulary, (sizes.tokens,), device=device)
    masked_K = torch.randperm(sizes.tokens, device=device)[: int(MASKED * sizes.tokens)]
    ignored_T = torch.full_like(target_T, -100).index_put((masked_K,), target_T[masked_K])
    given = (h, weight)

    def ours() -> Gradients:
        loss = linear_cross_entropy(h.index_select(0, masked_K), weight, target_T[masked_K])
        return torch.autograd.grad(loss / len(masked_K), given)

    def chunk(rows: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(rows, weight).float(), ids, reduction="sum")

    def chunked() -> Gradients:
        """As open_clip's fused_linear_cross_entropy does: all rows, logits computed twice."""
        pairs = zip(h.split(CHUNK), ignored_T.split(CHUNK), strict=True)
        losses = [checkpoint(chunk, x, weight, ids, use_reentrant=False) for x, ids in pairs]
        return torch.autograd.grad(torch.stack(losses).sum() / len(masked_K), given)  # pyright: ignore[reportArgumentType]

    def whole() -> Gradients:
        loss = F.cross_entropy(F.linear(h[masked_K], weight).float(), target_T[masked_K])
        return torch.autograd.grad(loss, given)

    ways: Ways = {"ours": ours, "chunks of all rows": chunked, "logits of masked rows": whole}
    liger = (
        _imported("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy")
        if device.type == "cuda"
        else None
    )
    if liger is not None:
        ways["Liger, masked rows"] = lambda: torch.autograd.grad(
            liger(h.index_select(0, masked_K), weight, target_T[masked_K]), given
        )
    return ways


def _imported(module: str, name: str) -> Callable[..., Any] | None:
    """A peer that need not be installed."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None


def _rows(
    label: str,
    ways: Ways,
    dtype: torch.dtype,
    gates: Mapping[str, float],
    rounds: int,
    device: torch.device,
    least_memory: float | None,
) -> list[Row]:
    wanted = ways["ours"]()
    for name in [name for name in ways if name != "ours"]:
        try:
            error = difference(wanted, ways[name]())
        except RuntimeError as problem:  # such as memory that does not suffice, or no compiler
            print(f"bench: {name} does not run here: {str(problem)[:120]}", file=sys.stderr)
            del ways[name]
            continue
        if not error <= TOLERANCE[dtype]:
            raise NumericError(f"{label}: gradients by {name} and by ours differ by {error:.1e}")
    del wanted
    times = medians(ways, rounds, device)
    others = [name for name in ways if name != "ours"]
    rows = [
        compare(f"{label}, against {name}", times["ours"], times[name], gates.get(name))
        for name in others
    ]
    rows += [missing(f"{label}, against {name}", gates[name]) for name in gates if name not in ways]
    if device.type == "cuda":
        kept = {name: _extra_memory(way, device) for name, way in ways.items()}
        rows += [
            compare(
                f"{label}, extra memory, against {name}",
                kept["ours"],
                kept[name],
                least_memory if name.startswith("eager") else None,
                "MiB",
            )
            for name in others
        ]
    return rows


def _extra_memory(way: Callable[[], Gradients], device: torch.device) -> float:
    """MiB at the peak beyond what is there before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    way()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
