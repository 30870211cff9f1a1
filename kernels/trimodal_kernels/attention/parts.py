"""What the programs of attention share: heads in two halves, and what is dropped of the scores.

A head is loaded as two halves, because a rotation pairs column i with column i + K/2; a product of
heads is the sum of the products of their halves.
"""
# Triton's types are not Python's
# pyright: reportMissingParameterType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false

import triton
import triton.language as tl


@triton.jit
def multiply(a, b, total, ACC: tl.constexpr):
    """Sum + a b, without rounding of fp32 inputs."""
    return tl.dot(a, b, total, input_precision="ieee", out_dtype=ACC)


@triton.jit
def load_heads(X, rows_B, valid_B, stride, HALF: tl.constexpr, UPCAST: tl.constexpr):
    """The halves (B, K/2) of the heads of some tokens, zeros beyond the tokens.

    The interpreter gets sums of bfloat16 wrong, so there they are made float32 at once.
    """
    columns = tl.arange(0, HALF)
    at = rows_B.to(tl.int64)[:, None] * stride + columns[None, :]
    mask = valid_B[:, None]
    a = tl.load(X + at, mask=mask, other=0.0)
    b = tl.load(X + at + HALF, mask=mask, other=0.0)
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return a, b


@triton.jit
def load_heads_again(X, rows_B, valid_B, stride, HALF: tl.constexpr, UPCAST: tl.constexpr):
    """The same once more and for the last time.

    The policy keeps the compiler from holding the first copy in registers meanwhile.
    """
    columns = tl.arange(0, HALF)
    at = rows_B.to(tl.int64)[:, None] * stride + columns[None, :]
    mask = valid_B[:, None]
    a = tl.load(X + at, mask=mask, other=0.0, eviction_policy="evict_first")
    b = tl.load(X + at + HALF, mask=mask, other=0.0, eviction_policy="evict_first")
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return a, b


@triton.jit
def store_heads(X, a, b, rows_B, valid_B, stride, HALF: tl.constexpr):
    """Write both halves."""
    columns = tl.arange(0, HALF)
    at = rows_B.to(tl.int64)[:, None] * stride + columns[None, :]
    mask = valid_B[:, None]
    tl.store(X + at, a.to(X.dtype.element_ty), mask=mask)
    tl.store(X + at + HALF, b.to(X.dtype.element_ty), mask=mask)


@triton.jit
def load_values(X, rows_B, valid_B, stride, WIDTH: tl.constexpr, UPCAST: tl.constexpr):
    """(B, WIDTH), zeros beyond the tokens."""
    columns = tl.arange(0, WIDTH)
    at = rows_B.to(tl.int64)[:, None] * stride + columns[None, :]
    x = tl.load(X + at, mask=valid_B[:, None], other=0.0)
    return x.to(tl.float32) if UPCAST else x


@triton.jit
def store_values(X, x, rows_B, valid_B, stride, WIDTH: tl.constexpr):
    """Write (B, WIDTH)."""
    columns = tl.arange(0, WIDTH)
    at = rows_B.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(X + at, x.to(X.dtype.element_ty), mask=valid_B[:, None])


@triton.jit
def _columns(X, HALF: tl.constexpr):
    """Two halves of K numbers."""
    columns = tl.arange(0, HALF)
    a = tl.load(X + columns)
    return a, tl.load(X + HALF + columns)


@triton.jit
def _angles(
    COS, SIN, rows_B, valid_B, HALF: tl.constexpr, POLICY: tl.constexpr
):  # fmt: skip
    """Cosines and sines (B, K/2); of another policy, a second load is not made the first."""
    columns = tl.arange(0, HALF)
    at = rows_B.to(tl.int64)[:, None] * HALF + columns[None, :]
    mask = valid_B[:, None]
    cos = tl.load(COS + at, mask=mask, other=0.0, eviction_policy=POLICY)
    return cos, tl.load(SIN + at, mask=mask, other=0.0, eviction_policy=POLICY)


@triton.jit
def load_turned(
    X, rows_B, valid_B, stride, WEIGHT, COS, SIN, eps, width, HALF: tl.constexpr,
    NORM: tl.constexpr, ROTARY: tl.constexpr, ACC: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The halves of heads, RMS-normalised and rotated in ACC, in the type that they have."""
    a, b = load_heads(X, rows_B, valid_B, stride, HALF, UPCAST)
    if NORM or ROTARY:
        dtype = a.dtype
        a, b = a.to(ACC), b.to(ACC)
        if NORM:
            inverse_B = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / width + eps)
            weight_a, weight_b = _columns(WEIGHT, HALF)
            a = a * inverse_B[:, None] * weight_a[None, :].to(ACC)
            b = b * inverse_B[:, None] * weight_b[None, :].to(ACC)
        if ROTARY:
            cos, sin = _angles(COS, SIN, rows_B, valid_B, HALF, "evict_last")
            cos, sin = cos.to(ACC), sin.to(ACC)
            a, b = a * cos - b * sin, b * cos + a * sin
        a, b = a.to(dtype), b.to(dtype)
    return a, b


@triton.jit
def turn_back(
    a, b, grad_a, grad_b, rows_B, valid_B, WEIGHT, COS, SIN, eps, width,
    HALF: tl.constexpr, NORM: tl.constexpr, ROTARY: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """From the gradient of what `load_turned` gave to that of the heads, `a` and `b`.

    Then the halves of the gradient of the weight over these tokens, zeros where there is none.
    """
    weight_grad_a, weight_grad_b = tl.zeros([HALF], ACC), tl.zeros([HALF], ACC)
    if ROTARY:
        cos, sin = _angles(COS, SIN, rows_B, valid_B, HALF, "evict_first")
        cos, sin = cos.to(ACC), sin.to(ACC)
        grad_a, grad_b = grad_a * cos + grad_b * sin, grad_b * cos - grad_a * sin
    if NORM:
        a, b = a.to(ACC), b.to(ACC)
        inverse_B = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / width + eps)
        a, b = a * inverse_B[:, None], b * inverse_B[:, None]
        weight_grad_a, weight_grad_b = tl.sum(grad_a * a, 0), tl.sum(grad_b * b, 0)
        weight_a, weight_b = _columns(WEIGHT, HALF)
        grad_a, grad_b = grad_a * weight_a[None, :].to(ACC), grad_b * weight_b[None, :].to(ACC)
        along_B = (tl.sum(grad_a * a, 1) + tl.sum(grad_b * b, 1)) / width
        grad_a = (grad_a - a * along_B[:, None]) * inverse_B[:, None]
        grad_b = (grad_b - b * along_B[:, None]) * inverse_B[:, None]
    return grad_a, grad_b, weight_grad_a, weight_grad_b


@triton.jit
def store_columns(X, a, b, HALF: tl.constexpr, NORM: tl.constexpr):
    """Write two halves of K numbers, a program's part of the gradient of a weight."""
    if NORM:
        columns = tl.arange(0, HALF)
        tl.store(X + columns, a)
        tl.store(X + HALF + columns, b)


@triton.jit
def distances(POSITION, rows_M, valid_M, keys_N, seen_N, reach):
    """Columns (M, N) of the table of biases: how far each key lies behind or ahead, clipped."""
    here_M = tl.load(POSITION + rows_M, mask=valid_M, other=0)
    there_N = tl.load(POSITION + keys_N, mask=seen_N, other=0)
    apart_MN = there_N[None, :] - here_M[:, None]
    return tl.minimum(tl.maximum(apart_MN, -reach), reach) + reach


@triton.jit
def kept(rows_M, keys_N, head, seed, dropout):
    """(M, N) which probabilities are kept: a function of (seed, head, query, key) and nothing else.

    Counters of Philox (Salmon et al., 2011), so it is the same whatever the tiles are.
    """
    zero_MN = rows_M[:, None] * 0 + keys_N[None, :] * 0
    drawn_MN, _, _, _ = tl.philox(
        seed, zero_MN + rows_M[:, None], zero_MN + keys_N[None, :], zero_MN + head, zero_MN
    )
    return tl.uint_to_uniform_float(drawn_MN) >= dropout
