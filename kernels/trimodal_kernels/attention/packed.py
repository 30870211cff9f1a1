"""Attention over packed tokens under a segment table.

o_THK = packed_attention(q_THK, k_THK, v_THK, segments, rotary=(cos_Tk, sin_Tk))
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.attention import dense
from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.attention.operator import attention
from trimodal_kernels.attention.reference import reference
from trimodal_kernels.blocks import Dense
from trimodal_kernels.dispatch import Implementation, chosen
from trimodal_kernels.segments import Segments

WIDEST_HEAD = 128
"""The largest size of a head that programs know."""


def packed_attention(
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    segments: Segments,
    *,
    norms: tuple[Tensor, Tensor] | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    bias: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v over the keys that the table gives each query.

    The work grows with the segments and not with T x T, no T x T tensor exists, and the result of a
    segment does not depend on what it is packed with. All sums are in fp32 at least, in an order
    that never varies (Dao, 2023; Milakov and Gimelshein, 2018).

    Args:
        q_THK: queries of T tokens, H heads of size K.
        k_THK: keys, of the same tokens or, where the table says so, of others.
        v_THK: values of the keys.
        segments: the table over these tokens.
        norms: weights (K,) of the RMS norms of queries and of keys.
        rotary: cosines and sines (T, K/2) by which pairs (i, i + K/2) of queries and keys are
            turned after the norms; the keys must be of the same tokens.
        bias: (H, 2 R + 1) added to the scores by how far a key lies from its query, clipped to R
            either way, and the int32 positions (T,) between which that is measured.
        eps: of the norms.
        dropout: of the probabilities; which are dropped depends on seed, head, query and key alone.
        seed: of the dropout.

    Returns:
        (T, H, K), in the type of `q_THK`.

    Raises:
        ValueError: the table or an argument is of other sizes.
    """
    extras = Extras(*norms or (None, None), *rotary or (None, None), *bias or (None, None))
    extras = extras._replace(eps=eps, dropout=dropout, seed=seed)
    return attend(q_THK, k_THK, v_THK, segments, extras)[0]


def attend(
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    segments: Segments,
    extras: Extras,
    *,
    wants_lse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same with the logarithm (H, T), in fp32 at least, of what each softmax divides by.

    On a CPU it is empty unless wanted. No gradient flows into it.

    Raises:
        ValueError: the table or an argument is of other sizes.
    """
    _check(q_THK, k_THK, v_THK, segments, extras)
    way = _way(q_THK, extras)
    if way == "triton" and segments.uniform and not wants_lse and _is_plain(extras):
        # where nothing is ragged and nothing is fused, PyTorch's own kernel is the fastest
        q, k, v = (
            x.unflatten(0, (-1, segments.uniform)).transpose(1, 2) for x in (q_THK, k_THK, v_THK)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(0, 1), q_THK.new_empty(0)
    if way == "reference":
        tables, _ = segments.plan(way, q_THK.shape[1])
        out, lse = reference(q_THK, k_THK, v_THK, tables[0], tables[1], extras)
        return out, lse.detach()
    given = (q_THK, k_THK, v_THK, extras.q_weight_K, extras.k_weight_K, extras.bias_HB)
    keeps = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    tables, sizes = segments.plan(way, q_THK.shape[1])
    if way == "cpu" and not keeps and not torch.compiler.is_compiling():
        # for a short text the dispatcher takes as long as the computing
        plan = Dense.unpacked(tables, sizes)
        return dense.forward(q_THK, k_THK, v_THK, plan, extras, False, wants_lse)[:2]
    out, lse, _ = attention(q_THK, k_THK, v_THK, *extras, tables, sizes, way, keeps, wants_lse)
    return out, lse


def _way(q_THK: Tensor, extras: Extras) -> Implementation:
    """What computes this; a bias or dropout on a CPU, and what no kernel knows, the reference."""
    way = chosen(q_THK.device)
    if way == "cpu" and (extras.bias_HB is not None or extras.dropout):
        return "reference"
    if way == "triton" and q_THK.is_cuda and q_THK.dtype == torch.float64:
        return "reference"
    width = q_THK.shape[-1]
    return "reference" if way == "triton" and (width % 2 or width > WIDEST_HEAD) else way


def _is_plain(extras: Extras) -> bool:
    return (
        extras.q_weight_K is None
        and extras.cos_Tk is None
        and extras.bias_HB is None
        and not extras.dropout
    )


def _check(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, segments: Segments, extras: Extras) -> None:
    size, heads, width = q_THK.shape
    if segments.num_tokens != size:
        raise ValueError(f"table of {segments.num_tokens} tokens for {size} queries")
    keys = size if segments.num_keys is None else segments.num_keys
    if k_THK.shape != (keys, heads, width) or v_THK.shape != k_THK.shape:
        shapes = f"{tuple(k_THK.shape)} and {tuple(v_THK.shape)}"
        raise ValueError(f"keys and values are {shapes}, not {(keys, heads, width)}")
    expected = {
        "q_weight_K": (width,),
        "k_weight_K": (width,),
        "cos_Tk": (size, width // 2),
        "sin_Tk": (size, width // 2),
        "bias_HB": (heads, 2 * extras.reach + 1),
        "position_T": (size,),
    }
    for name, shape in expected.items():
        given = getattr(extras, name)
        if given is not None and tuple(given.shape) != shape:
            raise ValueError(f"{name} is {tuple(given.shape)}, not {shape}")
    if segments.num_keys is not None and (extras.cos_Tk is not None or extras.bias_HB is not None):
        raise ValueError("keys of other tokens than the queries cannot be turned or biased here")
    if not 0 <= extras.dropout < 1:
        raise ValueError(f"dropout {extras.dropout:g} is not in [0, 1)")
