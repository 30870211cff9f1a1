"""The backward pass of components longer than a program holds: over queries, then over keys.

attention_backward_queries[tiles, heads](...); attention_backward_keys[programs, heads](...)
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
def attention_backward_queries(
    Q, K, V, OUT, GRAD_OUT, LSE, DELTA, GRAD_Q, GRAD_BIAS, PARTIAL_Q,
    LOW, HIGH, TILES, Q_WEIGHT, K_WEIGHT, COS, SIN, BIAS, POSITION,
    q_token, q_head, k_token, k_head, v_token, v_head, num_tokens, depth, reach,
    scale, eps, dropout, seed, width,
    HALF: tl.constexpr, NORM: tl.constexpr, ROTARY: tl.constexpr, BIASED: tl.constexpr,
    DROPPED: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of queries, and what each softmax subtracts, for the keys' kernel."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    tile, wide, at_head = tl.program_id(0), heads * (2 * HALF), head * (2 * HALF)
    TILES += tile * (2 + 2 * depth)
    rows_M = tl.load(TILES) + tl.arange(0, BLOCK_M)
    valid_M = rows_M < tl.load(TILES + 1)
    Q += head * q_head
    qa, qb = load_turned(
        Q, rows_M, valid_M, q_token, Q_WEIGHT, COS, SIN, eps, width, HALF, NORM, ROTARY, ACC, UPCAST
    )
    lse_M = tl.load(LSE + head * num_tokens + rows_M, mask=valid_M, other=0.0)
    do_MK = load_values(GRAD_OUT + at_head, rows_M, valid_M, wide, 2 * HALF, UPCAST)
    out_MK = load_values(OUT + at_head, rows_M, valid_M, wide, 2 * HALF, UPCAST)
    delta_M = tl.sum(out_MK.to(ACC) * do_MK.to(ACC), 1)
    tl.store(DELTA + head * num_tokens + rows_M, delta_M, mask=valid_M)
    sum_a, sum_b = tl.zeros([BLOCK_M, HALF], ACC), tl.zeros([BLOCK_M, HALF], ACC)
    for r in range(depth):
        low_M = tl.load(LOW + r * num_tokens + rows_M, mask=valid_M, other=0)
        high_M = tl.load(HIGH + r * num_tokens + rows_M, mask=valid_M, other=0)
        end = tl.load(TILES + 3 + 2 * r)
        for start in range(tl.load(TILES + 2 + 2 * r), end, BLOCK_N):
            keys_N = start + tl.arange(0, BLOCK_N)
            near_N = keys_N < end
            ka, kb = load_turned(
                K + head * k_head, keys_N, near_N, k_token, K_WEIGHT, COS, SIN, eps, width,
                HALF, NORM, ROTARY, ACC, UPCAST,
            )  # fmt: skip
            seen_MN = (keys_N[None, :] >= low_M[:, None]) & (keys_N[None, :] < high_M[:, None])
            v_NK = load_values(V + head * v_head, keys_N, near_N, v_token, 2 * HALF, UPCAST)
            grad_MN, _ = graded(
                qa, qb, ka, kb, do_MK, v_NK, lse_M, delta_M, rows_M, valid_M, keys_N, near_N,
                seen_MN, BIAS, POSITION, GRAD_BIAS, head, reach, scale, dropout, seed,
                BIASED, DROPPED, True, ACC,
            )  # fmt: skip
            grad_MN = grad_MN.to(ka.dtype)
            sum_a, sum_b = multiply(grad_MN, ka, sum_a, ACC), multiply(grad_MN, kb, sum_b, ACC)
    a, b = load_heads_again(Q, rows_M, valid_M, q_token, HALF, UPCAST)
    ga, gb, wa, wb = turn_back(
        a, b, sum_a * scale, sum_b * scale, rows_M, valid_M, Q_WEIGHT, COS, SIN, eps, width,
        HALF, NORM, ROTARY, ACC,
    )  # fmt: skip
    store_columns(PARTIAL_Q + (tile * heads + head) * (2 * HALF), wa, wb, HALF, NORM)
    store_heads(GRAD_Q + at_head, ga, gb, rows_M, valid_M, wide, HALF)


@triton.jit(do_not_specialize=["num_tokens", "depth", "reach", "seed", "width"])
def attention_backward_keys(
    Q, K, V, GRAD_OUT, LSE, DELTA, GRAD_K, GRAD_V, PARTIAL_K,
    LOW, HIGH, TILES, SPANS, Q_WEIGHT, K_WEIGHT, COS, SIN, BIAS, POSITION,
    q_token, q_head, k_token, k_head, v_token, v_head, num_tokens, depth, reach,
    scale, eps, dropout, seed, width,
    HALF: tl.constexpr, NORM: tl.constexpr, ROTARY: tl.constexpr, BIASED: tl.constexpr,
    DROPPED: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of keys, or a part of one, over the queries that see some of it."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    program, wide, at_head = tl.program_id(0), heads * (2 * HALF), head * (2 * HALF)
    TILES += 4 * (program // PARTS)
    keys_N = tl.load(TILES) + program % PARTS * BLOCK_N + tl.arange(0, BLOCK_N)
    valid_N = keys_N < tl.load(TILES + 1)
    K += head * k_head
    ka, kb = load_turned(
        K, keys_N, valid_N, k_token, K_WEIGHT, COS, SIN, eps, width, HALF, NORM, ROTARY, ACC, UPCAST
    )
    v_NK = load_values(V + head * v_head, keys_N, valid_N, v_token, 2 * HALF, UPCAST)
    dv_NK = tl.zeros([BLOCK_N, 2 * HALF], ACC)
    sum_a, sum_b = tl.zeros([BLOCK_N, HALF], ACC), tl.zeros([BLOCK_N, HALF], ACC)
    for s in range(tl.load(TILES + 2), tl.load(TILES + 3)):
        end = tl.load(SPANS + 2 * s + 1)
        for start in range(tl.load(SPANS + 2 * s), end, BLOCK_M):
            rows_M = start + tl.arange(0, BLOCK_M)
            near_M = rows_M < end
            qa, qb = load_turned(
                Q + head * q_head, rows_M, near_M, q_token, Q_WEIGHT, COS, SIN, eps, width,
                HALF, NORM, ROTARY, ACC, UPCAST,
            )  # fmt: skip
            seen_MN = attended(
                LOW, HIGH, rows_M, near_M, keys_N, valid_N, num_tokens, depth, BLOCK_M, BLOCK_N
            )
            lse_M = tl.load(LSE + head * num_tokens + rows_M, mask=near_M, other=0.0)
            delta_M = tl.load(DELTA + head * num_tokens + rows_M, mask=near_M, other=0.0)
            do_MK = load_values(GRAD_OUT + at_head, rows_M, near_M, wide, 2 * HALF, UPCAST)
            grad_MN, p_MN = graded(
                qa, qb, ka, kb, do_MK, v_NK, lse_M, delta_M, rows_M, near_M, keys_N, valid_N,
                seen_MN, BIAS, POSITION, BIAS, head, reach, scale, dropout, seed,
                BIASED, DROPPED, False, ACC,
            )  # fmt: skip
            dv_NK = multiply(tl.trans(p_MN.to(do_MK.dtype)), do_MK, dv_NK, ACC)
            grad_NM = tl.trans(grad_MN.to(qa.dtype))
            sum_a, sum_b = multiply(grad_NM, qa, sum_a, ACC), multiply(grad_NM, qb, sum_b, ACC)
    store_values(GRAD_V + at_head, dv_NK, keys_N, valid_N, wide, 2 * HALF)
    a, b = load_heads_again(K, keys_N, valid_N, k_token, HALF, UPCAST)
    ga, gb, wa, wb = turn_back(
        a, b, sum_a * scale, sum_b * scale, keys_N, valid_N, K_WEIGHT, COS, SIN, eps, width,
        HALF, NORM, ROTARY, ACC,
    )  # fmt: skip
    store_columns(PARTIAL_K + (program * heads + head) * (2 * HALF), wa, wb, HALF, NORM)
    store_heads(GRAD_K + at_head, ga, gb, keys_N, valid_N, wide, HALF)
