"""The gradients in Triton, from blocks of the gradient by the logits.

A program makes a tile of a block; the vendor's matrix products multiply the block. Summed in
registers, 256 of E at a time, the products are needed 4 times at E = 512, 12 N M E operations in
all; written once it is 6 N M E, and an H200 reads a block of 32 MiB back from its 50 MiB of cache.
"""

# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimodal_kernels.aot import Build
from trimodal_kernels.contrastive.forward import LOG2E
from trimodal_kernels.contrastive.pairs import Gradients, Pairs, softmax_weights
from trimodal_kernels.contrastive.tiles import (
    Arguments,
    Tile,
    build,
    constants,
    is_upcast,
    none_beyond,
    products,
    quarters,
    shipped,
    tile_for,
)

BLOCK = 4096
"""Rows, and columns, of the gradient by the logits that are there at a time."""


@triton.jit
def load_state(STATE, at, size):
    """Largest logit, factor of exponentials and what positives are due, of rows or of columns."""
    top = tl.load(STATE + at, mask=at < size, other=0.0)
    weight = tl.load(STATE + size + at, mask=at < size, other=0.0)
    return top, weight, tl.load(STATE + 2 * size + at, mask=at < size, other=0.0)


@triton.jit
def slope(s_RC, same_RC, top, weight, share, SIGMOID: tl.constexpr):
    """The gradient of the losses of one side by the logits."""
    if SIGMOID:
        wrong_RC = 1.0 / (1.0 + tl.exp(tl.where(same_RC, s_RC, -s_RC)))
        return tl.where(same_RC, -wrong_RC, wrong_RC) * weight
    return tl.exp2(s_RC - top) * weight - tl.where(same_RC, share, 0.0)


@triton.jit(do_not_specialize=["row_start", "column_start", "num_rows", "num_columns"])
def gradient_tiles(
    A, B, ID_N, ID_M, SCALE, BIAS, STATE_N, STATE_M, G, PART,
    row_start, column_start, num_rows, num_columns,
    E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    BOTH: tl.constexpr, SIGMOID: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """G (BLOCK, BLOCK) from a row and a column on, and with the sigmoid its sums (tiles) in PART.

    Where there is no pair the logit is -inf, so that G is 0.
    """
    at_R = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    at_C = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows_R = row_start + at_R
    dot_RC = products(
        A, B, rows_R, column_start + at_C, num_rows, num_columns, E, BLOCK_R, BLOCK_C, BLOCK_K, ACC,
        UPCAST, PRECISION,
    )  # fmt: skip
    id_R = tl.load(ID_N + rows_R, mask=rows_R < num_rows, other=-2)
    state_R = load_state(STATE_N, rows_R, num_rows)
    scale, shift_R = tl.load(SCALE).to(ACC), none_beyond(id_R)
    if SIGMOID:
        shift_R += tl.load(BIAS).to(ACC)
    else:
        scale *= LOG2E
    sum_R = tl.zeros([BLOCK_R], ACC)
    parts = quarters(dot_RC, BLOCK_R, BLOCK_C)
    for i in tl.static_range(4):
        at_C = tl.program_id(1) * BLOCK_C + i * (BLOCK_C // 4) + tl.arange(0, BLOCK_C // 4)
        columns_C = column_start + at_C
        id_C = tl.load(ID_M + columns_C, mask=columns_C < num_columns, other=-1)
        s_RC = tl.where((id_C >= 0)[None, :], parts[i] * scale + shift_R[:, None], -float("inf"))
        same_RC = id_R[:, None] == id_C[None, :]
        top, weight, share = state_R
        g_RC = slope(s_RC, same_RC, top[:, None], weight[:, None], share[:, None], SIGMOID)
        if BOTH:
            top, weight, share = load_state(STATE_M, columns_C, num_columns)
            g_RC += slope(s_RC, same_RC, top[None, :], weight[None, :], share[None, :], SIGMOID)
        if SIGMOID:
            sum_R += tl.sum(g_RC, 1)
        # a block has whole tiles and fewer than 2^31 numbers
        tl.store(G + at_R[:, None] * BLOCK + at_C[None, :], g_RC.to(G.dtype.element_ty))
    if SIGMOID:
        tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        tl.store(PART + tile, tl.sum(sum_R, 0))


def backward(
    pairs: Pairs,
    grad_N: Tensor,
    grad_M: Tensor,
    state_2N: Tensor,
    state_2M: Tensor,
    tile: Tile | None = None,
    block: int = BLOCK,
) -> Gradients:
    """The gradients of what `forward` gives, weighted by `grad_N` and `grad_M`.

    Args:
        pairs: what is contrasted.
        grad_N: of the losses of rows.
        grad_M: of the losses of columns.
        state_2N: what `forward` gave.
        state_2M: likewise.
        tile: another than the shipped one.
        block: rows and columns at a time, a multiple of the tile's.
    """
    arguments, tile = Arguments.of(pairs), tile or tile_for(pairs.a_NE)
    a_NE, b_ME = (x.float() if is_upcast(x) else x for x in arguments[:2])
    weights = _softmax_weights if pairs.bias is None else _sigmoid_weights
    states = [weights(grad_N, state_2N, pairs.count_N)]
    states.append(weights(grad_M, state_2M, pairs.count_M) if pairs.both else states[0])
    raw_NE, raw_ME = (torch.zeros_like(x, dtype=pairs.exact) for x in (a_NE, b_ME))
    grad_bias = torch.zeros_like(pairs.scale)
    room = a_NE.new_empty(min(block, tile.grid(len(a_NE), 1)[0] * tile.rows), block)
    for here, there in _blocks(len(a_NE), len(b_ME), block):
        g_RC = room[: here.stop - here.start, : there.stop - there.start]
        grid = tile.grid(*g_RC.shape)
        part = raw_NE.new_empty(grid[0] * grid[1])
        gradient_tiles[grid](
            *arguments, *states, g_RC, part, here.start, there.start, len(a_NE), len(b_ME),
            BOTH=pairs.both, SIGMOID=pairs.bias is not None, BLOCK=block,
            **constants(pairs.a_NE, tile), num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        if pairs.bias is not None:
            grad_bias += part.sum()
        _accumulate(raw_NE[here], g_RC, b_ME[there])
        _accumulate(raw_ME[there], g_RC.T, a_NE[here])
    return Gradients(
        (pairs.scale * raw_NE).to(pairs.a_NE.dtype),
        (pairs.scale * raw_ME).to(pairs.b_ME.dtype),
        (pairs.a_NE * raw_NE).sum(),
        grad_bias,
    )


def _softmax_weights(grad_N: Tensor, state_2N: Tensor, count_N: Tensor) -> Tensor:
    """Pivots that no logit exceeds, factors of exponentials, shares of positives."""
    top_N = state_2N[0].masked_fill(state_2N[1] == 0, torch.inf)
    return torch.stack([top_N, *softmax_weights(grad_N, state_2N, count_N)])


def _sigmoid_weights(grad_N: Tensor, _: Tensor, __: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(grad_N), grad_N, torch.zeros_like(grad_N)])


def _blocks(rows: int, columns: int, block: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, rows, block):
        for column in range(0, columns, block):
            yield slice(row, min(row + block, rows)), slice(column, min(column + block, columns))


def _accumulate(total: Tensor, x: Tensor, y: Tensor) -> None:
    """Add a matrix product; 16 bits are summed in float32."""
    if x.dtype == total.dtype:
        total.addmm_(x, y)
    else:
        torch.addmm(total, x, y, out_dtype=total.dtype, out=total)


def builds(arch: int) -> Iterator[Build]:
    """What is shipped."""
    for name, settings in shipped():
        for loss, is_sigmoid in (("softmax", False), ("sigmoid", True)):
            more = {"SIGMOID": is_sigmoid, "BLOCK": BLOCK}
            kernel = f"contrastive.{loss}_gradient[{name}]"
            yield build(kernel, gradient_tiles, settings | more)
