"""The backward pass of tokens that see only themselves and fit one program.

attention_backward_island[islands, heads](...)
"""
# Triton's types are not Python's
# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from trimodal_kernels.attention.parts import (
    load_heads_again,
    load_turned,
    load_values,
    multiply,
    store_columns,
    store_heads,
    store_values,
    turn_back,
)
from trimodal_kernels.attention.scores import attended, graded


@triton.jit(do_not_specialize=["num_tokens", "depth", "reach", "seed", "width"])
def attention_backward_island(
    Q, K, V, OUT, GRAD_OUT, LSE, GRAD_Q, GRAD_K, GRAD_V, GRAD_BIAS, PARTIAL_Q, PARTIAL_K,
    LOW, HIGH, TILES, Q_WEIGHT, K_WEIGHT, COS, SIN, BIAS, POSITION,
    q_token, q_head, k_token, k_head, v_token, v_head, num_tokens, depth, reach,
    scale, eps, dropout, seed, width,
    HALF: tl.constexpr, NORM: tl.constexpr, ROTARY: tl.constexpr, BIASED: tl.constexpr,
    DROPPED: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """All gradients of an island and a head."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    island = tl.program_id(0)
    rows_M = tl.load(TILES + 2 * island) + tl.arange(0, BLOCK)
    valid_M = rows_M < tl.load(TILES + 2 * island + 1)
    wide, at_head = heads * (2 * HALF), head * (2 * HALF)
    Q += head * q_head
    K += head * k_head
    qa, qb = load_turned(
        Q, rows_M, valid_M, q_token, Q_WEIGHT, COS, SIN, eps, width, HALF, NORM, ROTARY, ACC, UPCAST
    )
    ka, kb = load_turned(
        K, rows_M, valid_M, k_token, K_WEIGHT, COS, SIN, eps, width, HALF, NORM, ROTARY, ACC, UPCAST
    )
    seen_MN = attended(LOW, HIGH, rows_M, valid_M, rows_M, valid_M, num_tokens, depth, BLOCK, BLOCK)
    lse_M = tl.load(LSE + head * num_tokens + rows_M, mask=valid_M, other=0.0)
    do_MK = load_values(GRAD_OUT + at_head, rows_M, valid_M, wide, 2 * HALF, UPCAST)
    out_MK = load_values(OUT + at_head, rows_M, valid_M, wide, 2 * HALF, UPCAST)
    delta_M = tl.sum(out_MK.to(ACC) * do_MK.to(ACC), 1)
    v_NK = load_values(V + head * v_head, rows_M, valid_M, v_token, 2 * HALF, UPCAST)
    grad_MN, p_MN = graded(
        qa, qb, ka, kb, do_MK, v_NK, lse_M, delta_M, rows_M, valid_M, rows_M, valid_M, seen_MN,
        BIAS, POSITION, GRAD_BIAS, head, reach, scale, dropout, seed, BIASED, DROPPED, True, ACC,
    )  # fmt: skip
    dv_NK = multiply(tl.trans(p_MN.to(do_MK.dtype)), do_MK, tl.zeros([BLOCK, 2 * HALF], ACC), ACC)
    store_values(GRAD_V + at_head, dv_NK, rows_M, valid_M, wide, 2 * HALF)
    grad_MN = (grad_MN * scale).to(qa.dtype)
    zeros_MK = tl.zeros([BLOCK, HALF], ACC)
    ga, gb = multiply(grad_MN, ka, zeros_MK, ACC), multiply(grad_MN, kb, zeros_MK, ACC)
    xa, xb = load_heads_again(Q, rows_M, valid_M, q_token, HALF, UPCAST)
    ga, gb, wa, wb = turn_back(
        xa, xb, ga, gb, rows_M, valid_M, Q_WEIGHT, COS, SIN, eps, width, HALF, NORM, ROTARY, ACC
    )
    partial = (island * heads + head) * (2 * HALF)
    store_columns(PARTIAL_Q + partial, wa, wb, HALF, NORM)
    store_heads(GRAD_Q + at_head, ga, gb, rows_M, valid_M, wide, HALF)
    grad_MN = tl.trans(grad_MN)
    ga, gb = multiply(grad_MN, qa, zeros_MK, ACC), multiply(grad_MN, qb, zeros_MK, ACC)
    xa, xb = load_heads_again(K, rows_M, valid_M, k_token, HALF, UPCAST)
    ga, gb, wa, wb = turn_back(
        xa, xb, ga, gb, rows_M, valid_M, K_WEIGHT, COS, SIN, eps, width, HALF, NORM, ROTARY, ACC
    )
    store_columns(PARTIAL_K + partial, wa, wb, HALF, NORM)
    store_heads(GRAD_K + at_head, ga, gb, rows_M, valid_M, wide, HALF)
