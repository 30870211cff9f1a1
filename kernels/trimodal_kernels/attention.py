"""Attention over packed tokens under a segment table.

o_THK = packed_attention(q_THK, k_THK, v_THK, segments)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.segments import Bucket, Segments


def packed_attention(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, segments: Segments) -> Tensor:
    """softmax(q k^T / sqrt(K)) v over the keys that the table gives each query.

    Each bucket is one dense block, so the work grows with the segments and not with T x T, and the
    result of a segment does not depend on what it is packed with.

    Args:
        q_THK: queries of T tokens, H heads of size K.
        k_THK: keys, of the same tokens or, where the table says so, of others.
        v_THK: values of the keys.
        segments: the table over these tokens.

    Returns:
        (T, H, K), in the type of `q_THK`.
    """
    if segments.num_tokens != q_THK.shape[0]:
        raise ValueError(f"table of {segments.num_tokens} tokens for {q_THK.shape[0]} queries")
    if not segments.buckets:
        return q_THK
    buckets = segments.buckets
    query = torch.cat([bucket.query_BQ.flatten() for bucket in buckets])
    q = _Spread.apply(q_THK, query, segments.slot_T)
    if segments.keys_are_queries:
        k, v = (_Spread.apply(x, query, segments.slot_T) for x in (k_THK, v_THK))
    else:
        # one gather for all buckets: each has a gradient as long as the batch
        key = torch.cat([bucket.key_BL.flatten() for bucket in buckets])
        k, v = (x.index_select(0, key) for x in (k_THK, v_THK))
    parts = zip(
        buckets,
        q.split([bucket.query_BQ.numel() for bucket in buckets]),
        *(x.split([bucket.key_BL.numel() for bucket in buckets]) for x in (k, v)),
        strict=True,
    )
    outputs = [_block(q, k, v, bucket) for bucket, q, k, v in parts]
    return torch.cat(outputs).index_select(0, segments.slot_T)


def _block(q: Tensor, k: Tensor, v: Tensor, bucket: Bucket) -> Tensor:
    """(B*Q, H, K) and (B*L, H, K) to (B*Q, H, K)."""
    size = bucket.query_BQ.shape[0]
    q, k, v = (x.unflatten(0, (size, -1)).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bucket.mask_B1QL)
    return out.transpose(1, 2).flatten(0, 1)


class _Spread(torch.autograd.Function):
    """x[index], for an index that reads every row once and repeats row 0 in padding slots.

    The gradient of a padding slot is zero by the mask, so backward is a gather by the inverse
    instead of a scatter-add, which is several times slower on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def reference_attention(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, table_S5: Tensor) -> Tensor:
    """The same by one T x T mask, for tests: slow, and independent of the planning of blocks."""
    size = q_THK.shape[0]
    visible_TT = torch.zeros(size, size, dtype=torch.bool, device=q_THK.device)
    for q_start, q_end, kv_start, kv_end, causal in table_S5.tolist():
        rows, columns = q_end - q_start, kv_end - kv_start
        allowed = torch.ones(rows, columns, dtype=torch.bool, device=q_THK.device)
        if causal:
            allowed = allowed.tril(columns - rows)
        visible_TT[q_start:q_end, kv_start:kv_end] |= allowed
    scores_HTT = torch.einsum("qhk,lhk->hql", q_THK, k_THK) / q_THK.shape[-1] ** 0.5
    scores_HTT = scores_HTT.masked_fill(~visible_TT, float("-inf"))
    return torch.einsum("hql,lhk->qhk", scores_HTT.softmax(-1), v_THK)
