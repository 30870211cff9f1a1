"""The scores again in the backward pass: probabilities, their gradients, the biases' gradient."""
# Triton's types are not Python's
# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false

import triton
import triton.language as tl

from trimodal_kernels.attention.parts import distances, kept, multiply

FIXED = tl.constexpr(2.0**40)
"""Gradients of biases are summed as integers of this fraction: in any order the sum is the same."""


@triton.jit
def attended(
    LOW, HIGH, rows_M, valid_M, keys_N, seen_N, num_tokens, depth, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """(M, N) bool, which keys the queries see."""
    found_MN = tl.zeros([BLOCK_M, BLOCK_N], tl.int1)
    for r in range(depth):
        low_M = tl.load(LOW + r * num_tokens + rows_M, mask=valid_M, other=0)
        high_M = tl.load(HIGH + r * num_tokens + rows_M, mask=valid_M, other=0)
        found_MN |= (keys_N[None, :] >= low_M[:, None]) & (keys_N[None, :] < high_M[:, None])
    return found_MN & seen_N[None, :]


@triton.jit
def graded(
    qa, qb, ka, kb, do_MK, v_NK, lse_M, delta_M, rows_M, valid_M, keys_N, near_N, seen_MN,
    BIAS, POSITION, GRAD_BIAS, head, reach, scale, dropout, seed,
    BIASED: tl.constexpr, DROPPED: tl.constexpr, ADDS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(M, N) the gradient of the scores, and the probabilities that values were weighted with.

    The probabilities come from the logarithms of their sums. If it `ADDS`, the gradient of the
    biases is added to, in fixed point.
    """
    score_MN = tl.dot(qa, tl.trans(ka), input_precision="ieee", out_dtype=ACC)
    score_MN = multiply(qb, tl.trans(kb), score_MN, ACC) * scale
    if BIASED:
        column_MN = distances(POSITION, rows_M, valid_M, keys_N, near_N, reach)
        column_MN += head * (2 * reach + 1)
        score_MN += tl.load(BIAS + column_MN).to(ACC)
    p_MN = tl.where(seen_MN, tl.exp(score_MN - lse_M[:, None]), 0.0)
    grad_MN = tl.dot(do_MK, tl.trans(v_NK), input_precision="ieee", out_dtype=ACC)
    weight_MN = p_MN
    if DROPPED:
        kept_MN = kept(rows_M, keys_N, head.to(tl.int32), seed, dropout)
        grad_MN = tl.where(kept_MN, grad_MN, 0.0) / (1.0 - dropout)
        weight_MN = tl.where(kept_MN, p_MN, 0.0) / (1.0 - dropout)
    grad_MN = p_MN * (grad_MN - delta_M[:, None])
    if BIASED and ADDS:
        fixed_MN = (grad_MN * FIXED).to(tl.int64)
        tl.atomic_add(GRAD_BIAS + column_MN, fixed_MN, mask=seen_MN, sem="relaxed")
    return grad_MN, weight_MN
