"""The forward pass of packed attention in Triton: one program for a tile of queries and a head.

out_THK, lse_HT = forward(q_THK, k_THK, v_THK, tiles, extras)
"""
# Triton's types are not Python's
# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trimodal_kernels.aot import Build
from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.attention.launching import (
    ALIGNED,
    constants,
    cut_halves,
    numbers,
    padded,
    pointers,
    signature,
    variants,
)
from trimodal_kernels.attention.parts import (
    distances,
    kept,
    load_turned,
    load_values,
    multiply,
    store_values,
)
from trimodal_kernels.tiles import TILE, Tiles

WARPS = {32: 4, 64: 4, 128: 8}
"""By the size of a head."""
BIASED_WARPS = 8
STAGES = 2


@triton.jit(do_not_specialize=["num_tokens", "depth", "reach", "seed", "width"])
def attention_forward(
    Q, K, V, OUT, LSE, LOW, HIGH, TILES, Q_WEIGHT, K_WEIGHT, COS, SIN, BIAS, POSITION,
    q_token, q_head, k_token, k_head, v_token, v_head, num_tokens, depth, reach,
    scale, eps, dropout, seed, width,
    HALF: tl.constexpr, NORM: tl.constexpr, ROTARY: tl.constexpr, BIASED: tl.constexpr,
    DROPPED: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Softmax over the intervals of the tile's queries, block of keys by block (Dao, 2023)."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    TILES += tl.program_id(0) * (2 + 2 * depth)
    rows_M = tl.load(TILES) + tl.arange(0, BLOCK_M)
    valid_M = rows_M < tl.load(TILES + 1)
    qa, qb = load_turned(
        Q + head * q_head, rows_M, valid_M, q_token, Q_WEIGHT, COS, SIN, eps, width,
        HALF, NORM, ROTARY, ACC, UPCAST,
    )  # fmt: skip
    top_M = tl.full([BLOCK_M], -float("inf"), ACC)
    total_M = tl.zeros([BLOCK_M], ACC)
    out_MK = tl.zeros([BLOCK_M, 2 * HALF], ACC)
    for r in range(depth):
        low_M = tl.load(LOW + r * num_tokens + rows_M, mask=valid_M, other=0)
        high_M = tl.load(HIGH + r * num_tokens + rows_M, mask=valid_M, other=0)
        end = tl.load(TILES + 3 + 2 * r)
        for start in range(tl.load(TILES + 2 + 2 * r), end, BLOCK_N):
            keys_N = start + tl.arange(0, BLOCK_N)
            seen_N = keys_N < end
            ka, kb = load_turned(
                K + head * k_head, keys_N, seen_N, k_token, K_WEIGHT, COS, SIN, eps, width,
                HALF, NORM, ROTARY, ACC, UPCAST,
            )  # fmt: skip
            score_MN = tl.dot(qa, tl.trans(ka), input_precision="ieee", out_dtype=ACC)
            score_MN = multiply(qb, tl.trans(kb), score_MN, ACC) * scale
            if BIASED:
                column_MN = distances(POSITION, rows_M, valid_M, keys_N, seen_N, reach)
                score_MN += tl.load(BIAS + head * (2 * reach + 1) + column_MN).to(ACC)
            seen_MN = (keys_N[None, :] >= low_M[:, None]) & (keys_N[None, :] < high_M[:, None])
            score_MN = tl.where(seen_MN, score_MN, -float("inf"))
            new_M = tl.maximum(top_M, tl.max(score_MN, 1))
            # a query that has seen no key yet has no top
            pivot_M = tl.where(new_M == -float("inf"), 0.0, new_M)
            p_MN = tl.exp(score_MN - pivot_M[:, None])
            fade_M = tl.exp(top_M - pivot_M)
            total_M = total_M * fade_M + tl.sum(p_MN, 1)
            if DROPPED:
                p_MN = tl.where(kept(rows_M, keys_N, head.to(tl.int32), seed, dropout), p_MN, 0.0)
                p_MN /= 1.0 - dropout
            v_NK = load_values(V + head * v_head, keys_N, seen_N, v_token, 2 * HALF, UPCAST)
            out_MK = multiply(p_MN.to(v_NK.dtype), v_NK, out_MK * fade_M[:, None], ACC)
            top_M = new_M
    total_M = tl.where(valid_M, total_M, 1.0)
    store_values(
        OUT + head * (2 * HALF), out_MK / total_M[:, None], rows_M, valid_M, heads * (2 * HALF),
        2 * HALF,
    )  # fmt: skip
    tl.store(LSE + head * num_tokens + rows_M, top_M + tl.log(total_M), mask=valid_M)


def forward(
    q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, tiles: Tiles, extras: Extras
) -> tuple[Tensor, Tensor]:
    """What attention gives (T, H, K), and the logarithm (H, T) of what its softmax divides by."""
    size, heads, width = q_THK.shape
    q, k, v, extras = padded(q_THK, k_THK, v_THK, extras)
    out_THK = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    exact = torch.promote_types(q.dtype, torch.float32)
    lse_HT = torch.empty((heads, size), dtype=exact, device=q.device)
    if not size:
        return q_THK.new_empty(q_THK.shape), lse_HT
    settings = constants(q, extras)
    attention_forward[len(tiles.query_NC), heads](
        q, k, v, out_THK, lse_HT, tiles.low_RT, tiles.high_RT, tiles.query_NC,
        *pointers(extras, q), *numbers(q, k, v, width, tiles, extras),
        **settings, BLOCK_M=tiles.tile, BLOCK_N=tiles.tile,
        num_warps=_warps(q.shape[-1], settings), num_stages=STAGES,
    )  # fmt: skip
    return cut_halves(out_THK, width), lse_HT


def _warps(size: int, settings: dict[str, Any]) -> int:
    return BIASED_WARPS if settings["BIASED"] else WARPS[size]


def builds(arch: int) -> Iterator[Build]:
    """What is shipped."""
    names = list(attention_forward.arg_names)
    for name, size, settings in variants():
        yield Build(
            f"attention.forward[{name}]",
            attention_forward,
            signature(names),
            {**settings, "BLOCK_M": TILE, "BLOCK_N": TILE},
            _warps(size, settings),
            STAGES,
            aligned=ALIGNED,
        )
