"""Packed attention in plain torch with one T x T mask: slow, and what every other way is held to.

out_THK, lse_HT = reference(q_THK, k_THK, v_THK, low_RT, high_RT, extras)
"""

import torch
from torch import Tensor

from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.attention.turning import turn
from trimodal_kernels.philox import uniform


def reference(
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    low_RT: Tensor,
    high_RT: Tensor,
    extras: Extras,
) -> tuple[Tensor, Tensor]:
    """What attention gives, in the type of `q_THK`, and its log-sum-exp (H, T)."""
    dtype = torch.float64 if q_THK.dtype == torch.float64 else torch.float32
    q, k, v = (x.to(dtype) for x in (q_THK, k_THK, v_THK))
    q = turn(q, extras.q_weight_K, extras.cos_Tk, extras.sin_Tk, extras.eps)
    k = turn(k, extras.k_weight_K, extras.cos_Tk, extras.sin_Tk, extras.eps)
    score_HTL = torch.einsum("qhk,lhk->hql", q, k) / q.shape[-1] ** 0.5
    if extras.bias_HB is not None and extras.position_T is not None:
        position = extras.position_T.long()
        apart_TL = (position - position[:, None]).clamp(-extras.reach, extras.reach)
        score_HTL = score_HTL + extras.bias_HB[:, apart_TL + extras.reach]
    key_L = torch.arange(len(k), device=k.device)
    seen_TL = ((key_L >= low_RT[:, :, None]) & (key_L < high_RT[:, :, None])).any(0)
    score_HTL = score_HTL.masked_fill(~seen_TL, float("-inf"))
    p_HTL = score_HTL.softmax(-1)
    if extras.dropout:
        heads = torch.arange(q.shape[1], device=k.device)[:, None, None]
        queries = torch.arange(len(q), device=k.device)[:, None]
        drawn_HTL = uniform(extras.seed, queries, key_L, heads)
        p_HTL = p_HTL.where(drawn_HTL >= extras.dropout, 0.0) / (1 - extras.dropout)
    out_THK = torch.einsum("hql,lhk->qhk", p_HTL, v)
    return out_THK.to(q_THK.dtype), score_HTL.logsumexp(-1)
