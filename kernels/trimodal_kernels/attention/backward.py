"""The backward pass of packed attention in Triton, without sums whose order varies.

gradients = backward(grad_out_THK, q_THK, k_THK, v_THK, out_THK, lse_HT, tiles, extras)

Where a tile of tokens sees only itself, one program holds it whole: five products, and every tensor
is read once. Longer components take two kernels, one over their queries and one over their keys,
which compute the probabilities twice: seven products.
"""
# Triton's types are not Python's
# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trimodal_kernels.aot import Build
from trimodal_kernels.attention.extras import Extras, Gradients
from trimodal_kernels.attention.island import attention_backward_island
from trimodal_kernels.attention.launching import (
    ALIGNED,
    arch_of,
    constants,
    cut_halves,
    numbers,
    pad_halves,
    padded,
    pointers,
    signature,
    variants,
)
from trimodal_kernels.attention.long import attention_backward_keys, attention_backward_queries
from trimodal_kernels.attention.scores import FIXED
from trimodal_kernels.tiles import TILE, Tiles

ISLAND_WARPS = 8
LARGEST_IN_ISLANDS = {80: 64, 90: 128}
"""By architecture the size of a head above which an island does not fit the registers."""
QUERIES = {32: (64, 4), 64: (32, 8), 128: (32, 8)}
"""By the size of a head: keys of a block, and warps."""
KEYS = {
    80: {32: (64, 64, 4), 64: (32, 32, 8), 128: (32, 32, 8)},
    90: {32: (64, 64, 4), 64: (32, 64, 8), 128: (32, 64, 8)},
}
"""By architecture and the size of a head: queries of a block, keys of a program, and warps."""
STAGES = 2


def backward(
    grad_THK: Tensor,
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    out_THK: Tensor,
    lse_HT: Tensor,
    tiles: Tiles,
    extras: Extras,
) -> Gradients:
    """The gradients, from that of the output."""
    heads, width = q_THK.shape[1:]
    q, k, v, extras = padded(q_THK, k_THK, v_THK, extras)
    size = q.shape[-1]
    out, grad = (pad_halves(x, size).contiguous() for x in (out_THK, grad_THK))
    settings, arch = constants(q, extras), arch_of(q.device)
    if size > LARGEST_IN_ISLANDS[arch]:
        tiles = tiles.without_islands()
    made = [x.new_empty(x.shape) for x in (q, k, v)]
    biased = (0,) if extras.bias_HB is None else extras.bias_HB.shape
    fixed_HB = torch.zeros(biased, dtype=torch.int64, device=q.device)
    given = pointers(extras, q), numbers(q, k, v, width, tiles, extras)
    tables = (tiles.low_RT, tiles.high_RT)
    partials: list[tuple[Tensor, Tensor]] = []

    def partial(count: int) -> Tensor:
        return lse_HT.new_empty((count if settings["NORM"] else 0, heads, size))

    if count := len(tiles.island_N2):
        partials.append((partial(count), partial(count)))
        attention_backward_island[count, heads](
            q, k, v, out, grad, lse_HT, *made, fixed_HB, *partials[-1],
            *tables, tiles.island_N2, *given[0], *given[1],
            **settings, BLOCK=tiles.tile, num_warps=ISLAND_WARPS, num_stages=1,
        )  # fmt: skip
    if tiles.num_long:
        delta_HT = torch.empty_like(lse_HT)
        rows, columns, key_warps = KEYS[arch][size]
        rows, columns = min(rows, tiles.tile), min(columns, tiles.tile)
        parts = tiles.tile // columns
        partials.append((partial(tiles.num_long), partial(len(tiles.key_N4) * parts)))
        block, warps = QUERIES[size]
        attention_backward_queries[tiles.num_long, heads](
            q, k, v, out, grad, lse_HT, delta_HT, made[0], fixed_HB,
            partials[-1][0], *tables, tiles.query_NC, *given[0], *given[1],
            **settings, BLOCK_M=tiles.tile, BLOCK_N=min(block, tiles.tile),
            num_warps=warps, num_stages=STAGES,
        )  # fmt: skip
        attention_backward_keys[len(tiles.key_N4) * parts, heads](
            q, k, v, grad, lse_HT, delta_HT, made[1], made[2],
            partials[-1][1], *tables, tiles.key_N4, tiles.span_N2, *given[0], *given[1],
            **settings, BLOCK_M=rows, BLOCK_N=columns, PARTS=parts,
            num_warps=key_warps, num_stages=STAGES,
        )  # fmt: skip
    grads = (cut_halves(x, width) for x in made)
    return Gradients(*grads, *_weights(partials, extras, width), _bias(fixed_HB, extras))


def _weights(
    partials: Sequence[tuple[Tensor, Tensor]], extras: Extras, width: int
) -> Iterator[Tensor | None]:
    """The gradients of the norms' weights: sums over programs in a fixed order."""
    for i, weight_K in enumerate((extras.q_weight_K, extras.k_weight_K)):
        if weight_K is None:
            yield None
        else:
            parts = [pair[i].sum((0, 1)) for pair in partials]
            total_K = torch.stack(parts).sum(0) if parts else torch.zeros_like(weight_K)
            yield cut_halves(total_K, width).to(weight_K.dtype)


def _bias(fixed_HB: Tensor, extras: Extras) -> Tensor | None:
    if extras.bias_HB is None:
        return None
    return (fixed_HB.double() / FIXED.value).to(extras.bias_HB.dtype)


def builds(arch: int) -> Iterator[Build]:
    """What is shipped."""
    for name, size, settings in variants():
        if size <= LARGEST_IN_ISLANDS[arch]:
            found = {**settings, "BLOCK": TILE}
            yield _build("island", name, attention_backward_island, found, ISLAND_WARPS, 1)
        block, warps = QUERIES[size]
        found = {**settings, "BLOCK_M": TILE, "BLOCK_N": block}
        yield _build("queries", name, attention_backward_queries, found, warps, STAGES)
        rows, columns, warps = KEYS[arch][size]
        found = {**settings, "BLOCK_M": rows, "BLOCK_N": columns, "PARTS": TILE // columns}
        yield _build("keys", name, attention_backward_keys, found, warps, STAGES)


def _build(
    part: str, name: str, kernel: Any, settings: dict[str, Any], warps: int, stages: int
) -> Build:
    types = signature(list(kernel.arg_names))
    label = f"attention.{part}[{name}]"
    return Build(label, kernel, types, settings, warps, stages, aligned=ALIGNED)
