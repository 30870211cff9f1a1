"""The losses in Triton, from tiles of products that are never written.

A program makes one tile, and of each of its rows and columns what they add to a loss. On an H200
(790 Tflop/s, 4.3 TB/s) 2 N M E operations and 12 bytes for each row and column of a tile are 1.4 ms
and 0.05 ms at N = M = 32768, E = 512: products decide, so one tile serves both sides.
"""

# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimodal_kernels.aot import Build
from trimodal_kernels.contrastive.pairs import Losses, Pairs
from trimodal_kernels.contrastive.tiles import (
    Arguments,
    Tile,
    build,
    constants,
    none_beyond,
    products,
    quarters,
    shipped,
    tile_for,
)

ROWS = 4096
"""Rows at a time, so that what tiles leave to be merged grows with M and not with N M."""
MERGED = 32, 32
"""Tiles, and rows or columns, that a program merges at once."""
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = 0.6931471805599453


@triton.jit
def reduce_softmax(s_RC, same_RC, AXIS: tl.constexpr):
    """Along an axis: the largest, the sum of exponentials below it, and the sum of positives.

    Logits are in units of log 2, -inf where there is no pair; with none, so is the largest.
    """
    top = tl.max(s_RC, AXIS)
    pivot = tl.where(top == -float("inf"), 0.0, top)
    total = tl.sum(tl.exp2(s_RC - tl.expand_dims(pivot, AXIS)), AXIS)
    return top, total, tl.sum(tl.where(same_RC, s_RC, 0.0), AXIS)


@triton.jit
def join_softmax(top, total, along, more_top, more_total, more_along):
    """Of two sets of logits."""
    new = tl.maximum(top, more_top)
    pivot = tl.where(new == -float("inf"), 0.0, new)
    total = total * tl.exp2(top - pivot) + more_total * tl.exp2(more_top - pivot)
    return new, total, along + more_along


@triton.jit
def store_softmax(PART, at, step, valid, top, total, along):
    """What `reduce_softmax` gave, to three tables."""
    tl.store(PART + at, top, mask=valid)
    tl.store(PART + step + at, total, mask=valid)
    tl.store(PART + 2 * step + at, along, mask=valid)


@triton.jit(do_not_specialize=["row_start", "num_rows", "num_columns"])
def softmax_tiles(
    A, B, ID_N, ID_M, SCALE, BIAS, PART_N, PART_M, row_start, num_rows, num_columns,
    E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    BOTH: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """PART_N (3, column tiles, rows from `row_start`) and PART_M (3, row tiles, columns)."""
    rows_R = row_start + tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns_C = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    s_RC = products(
        A, B, rows_R, columns_C, num_rows, num_columns, E, BLOCK_R, BLOCK_C, BLOCK_K, ACC, UPCAST,
        PRECISION,
    )  # fmt: skip
    id_R = tl.load(ID_N + rows_R, mask=rows_R < num_rows, other=-2)
    s_RC = s_RC * (tl.load(SCALE).to(ACC) * LOG2E) + none_beyond(id_R)[:, None]
    total = tl.zeros([BLOCK_R], ACC)
    top, along = total - float("inf"), total
    parts = quarters(s_RC, BLOCK_R, BLOCK_C)
    for i in tl.static_range(4):
        columns_C = tl.program_id(1) * BLOCK_C + i * (BLOCK_C // 4) + tl.arange(0, BLOCK_C // 4)
        id_C = tl.load(ID_M + columns_C, mask=columns_C < num_columns, other=-1)
        s_RC = tl.where((id_C >= 0)[None, :], parts[i], -float("inf"))
        same_RC = id_R[:, None] == id_C[None, :]
        more_top, more_total, more_along = reduce_softmax(s_RC, same_RC, 1)
        top, total, along = join_softmax(top, total, along, more_top, more_total, more_along)
        if BOTH:
            top_C, total_C, along_C = reduce_softmax(s_RC, same_RC, 0)
            at_C = tl.program_id(0).to(tl.int64) * num_columns + columns_C
            step = tl.num_programs(0).to(tl.int64) * num_columns
            store_softmax(PART_M, at_C, step, columns_C < num_columns, top_C, total_C, along_C)
    size = num_rows - row_start
    at_R = tl.program_id(1).to(tl.int64) * size + rows_R - row_start
    step = tl.num_programs(1).to(tl.int64) * size
    store_softmax(PART_N, at_R, step, rows_R < num_rows, top, total, along)


@triton.jit(do_not_specialize=["parts", "size", "total"])
def softmax_merge(
    PART, STATE, parts, size, total, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Add PART (3, parts, size) to the first `size` of each row of STATE (3, total)."""
    at_N = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    valid_N = at_N < size
    top_N = tl.load(STATE + at_N, mask=valid_N, other=-float("inf"))
    sum_N = tl.load(STATE + total + at_N, mask=valid_N, other=0.0)
    along_N = tl.load(STATE + 2 * total + at_N, mask=valid_N, other=0.0)
    step = parts.to(tl.int64) * size
    for start in range(0, parts, BLOCK_T):
        part_T = start + tl.arange(0, BLOCK_T)
        mask_TN = (part_T < parts)[:, None] & valid_N[None, :]
        here_TN = PART + part_T.to(tl.int64)[:, None] * size + at_N[None, :]
        top_TN = tl.load(here_TN, mask=mask_TN, other=-float("inf"))
        sum_TN = tl.load(here_TN + step, mask=mask_TN, other=0.0)
        along_TN = tl.load(here_TN + 2 * step, mask=mask_TN, other=0.0)
        more_N = tl.max(top_TN, 0)
        pivot_N = tl.where(more_N == -float("inf"), 0.0, more_N)
        more_sum_N = tl.sum(sum_TN * tl.exp2(top_TN - pivot_N[None, :]), 0)
        top_N, sum_N, along_N = join_softmax(
            top_N, sum_N, along_N, more_N, more_sum_N, tl.sum(along_TN, 0)
        )
    tl.store(STATE + at_N, top_N, mask=valid_N)
    tl.store(STATE + total + at_N, sum_N, mask=valid_N)
    tl.store(STATE + 2 * total + at_N, along_N, mask=valid_N)


@triton.jit
def softplus(x):
    """log(1 + e^x), exact to the last digits on both sides."""
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    # log(u) of the rounded u, corrected by how far it was rounded
    rounded = e / tl.where(u == 1.0, 1.0, u - 1.0)
    return tl.maximum(x, 0.0) + tl.where(u == 1.0, e, tl.log(u) * rounded)


@triton.jit(do_not_specialize=["row_start", "num_rows", "num_columns"])
def sigmoid_tiles(
    A, B, ID_N, ID_M, SCALE, BIAS, PART_N, PART_M, row_start, num_rows, num_columns,
    E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    BOTH: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """PART_N (column tiles, rows from `row_start`) and PART_M (row tiles, columns) of the loss."""
    rows_R = row_start + tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns_C = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    s_RC = products(
        A, B, rows_R, columns_C, num_rows, num_columns, E, BLOCK_R, BLOCK_C, BLOCK_K, ACC, UPCAST,
        PRECISION,
    )  # fmt: skip
    id_R = tl.load(ID_N + rows_R, mask=rows_R < num_rows, other=-2)
    s_RC = s_RC * tl.load(SCALE).to(ACC) + tl.load(BIAS).to(ACC) + none_beyond(id_R)[:, None]
    loss_R = tl.zeros([BLOCK_R], ACC)
    parts = quarters(s_RC, BLOCK_R, BLOCK_C)
    for i in tl.static_range(4):
        columns_C = tl.program_id(1) * BLOCK_C + i * (BLOCK_C // 4) + tl.arange(0, BLOCK_C // 4)
        id_C = tl.load(ID_M + columns_C, mask=columns_C < num_columns, other=-1)
        s_RC = tl.where((id_C >= 0)[None, :], parts[i], -float("inf"))
        loss_RC = softplus(tl.where(id_R[:, None] == id_C[None, :], -s_RC, s_RC))
        loss_R += tl.sum(loss_RC, 1)
        if BOTH:
            at_C = tl.program_id(0).to(tl.int64) * num_columns + columns_C
            tl.store(PART_M + at_C, tl.sum(loss_RC, 0), mask=columns_C < num_columns)
    at_R = tl.program_id(1).to(tl.int64) * (num_rows - row_start) + rows_R - row_start
    tl.store(PART_N + at_R, loss_R, mask=rows_R < num_rows)


def forward(pairs: Pairs, tile: Tile | None = None, rows: int = ROWS) -> Losses:
    """The losses of rows and, if they are wanted and nothing is left out, of columns.

    Args:
        pairs: what is contrasted.
        tile: another than the shipped one.
        rows: at a time.
    """
    tile = tile or tile_for(pairs.a_NE)
    return (_softmax if pairs.bias is None else _sigmoid)(pairs, tile, rows)


def _softmax(pairs: Pairs, tile: Tile, rows: int) -> Losses:
    states = [pairs.scale.new_zeros(3, len(x)) for x in pairs[:2]]
    for state in states:
        state[0] = -torch.inf
    for start, end, parts in _parts(softmax_tiles, (3,), pairs, tile, rows):
        merge(parts[0], states[0][:, start:end])
        if pairs.both:
            merge(parts[1], states[1])
    loss_N = _softmax_loss(states[0], pairs.count_N)
    loss_M = _softmax_loss(states[1], pairs.count_M) if pairs.both else loss_N.new_zeros(0)
    return Losses(loss_N, loss_M, *(state[:2].clone() for state in states))


def _sigmoid(pairs: Pairs, tile: Tile, rows: int) -> Losses:
    loss_N, loss_M = (pairs.scale.new_zeros(len(x)) for x in pairs[:2])
    for start, end, parts in _parts(sigmoid_tiles, (), pairs, tile, rows):
        loss_N[start:end] = parts[0].sum(0)
        if pairs.both:
            loss_M += parts[1].sum(0)
    states = (x.new_zeros(2, len(x)) for x in (loss_N, loss_M))
    return Losses(loss_N, loss_M if pairs.both else loss_M.new_zeros(0), *states)


def _parts(
    kernel: Any, kinds: tuple[int, ...], pairs: Pairs, tile: Tile, rows: int
) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Of some rows at a time, what the tiles found of each row and of each column."""
    arguments, columns = Arguments.of(pairs), len(pairs.b_ME)
    for start in range(0, len(pairs.a_NE) if columns else 0, rows):
        end = min(start + rows, len(pairs.a_NE))
        grid = tile.grid(end - start, columns)
        sizes = (grid[1], end - start), (grid[0], columns if pairs.both else 0)
        parts = [
            torch.empty(*kinds, *size, dtype=pairs.exact, device=pairs.a_NE.device)
            for size in sizes
        ]
        kernel[grid](
            *arguments, *parts, start, end, columns, BOTH=pairs.both,
            **constants(pairs.a_NE, tile), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        yield start, end, parts


def merge(part_3TN: Tensor, state_3N: Tensor) -> None:
    """Add what T tiles found to what is known of each row; `state_3N` may be some of the rows."""
    _, parts, size = part_3TN.shape
    softmax_merge[(-(-size // MERGED[1]),)](
        part_3TN, state_3N, parts, size, state_3N.stride(0),
        BLOCK_T=MERGED[0], BLOCK_N=MERGED[1], num_warps=4,
    )  # fmt: skip


def _softmax_loss(state_3N: Tensor, count_N: Tensor) -> Tensor:
    top_N, sum_N, along_N = state_3N
    # a positive that is the largest logit leaves exactly 0 in the brackets
    return ((top_N - along_N / count_N) * LN2 + sum_N.log()).where(count_N > 0, 0.0)


def builds(arch: int) -> Iterator[Build]:
    """What is shipped."""
    for name, settings in shipped():
        for kernel in (softmax_tiles, sigmoid_tiles):
            yield build(f"contrastive.{kernel.__name__}[{name}]", kernel, settings)
    names = {"PART": "*fp32", "STATE": "*fp32", "parts": "i32", "size": "i32", "total": "i32"}
    blocks = {"BLOCK_T": MERGED[0], "BLOCK_N": MERGED[1]}
    yield Build("contrastive.softmax_merge", softmax_merge, names, blocks, 4, 3, matrix=False)
