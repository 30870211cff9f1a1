"""Packed attention against one T x T mask, values and gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import Kind, Segments, packed_attention
from trimodal_kernels.attention import reference_attention

FULL, CAUSAL = Kind.FULL, Kind.CAUSAL
Rows = list[tuple[int, int, int, int, int]]


def _end_to_end(lengths: list[int], kind: Kind) -> Rows:
    ends = np.cumsum(lengths).tolist()
    return [(end - n, end, end - n, end, kind) for end, n in zip(ends, lengths, strict=True)]


TABLES: dict[str, Rows] = {
    "one": _end_to_end([7], FULL),
    "length-one": _end_to_end([1, 1, 3, 1], FULL),
    "odd": _end_to_end([1, 63, 2, 17, 100, 33], FULL),
    "causal": _end_to_end([1, 5, 17, 2], CAUSAL),
    "full-and-causal": [(0, 4, 0, 4, FULL), (4, 9, 4, 9, CAUSAL)],
    "shared-prefix": [
        (0, 5, 0, 5, FULL),
        (5, 8, 0, 5, FULL),
        (5, 8, 5, 8, CAUSAL),
        (8, 14, 0, 5, FULL),
        (8, 14, 8, 14, CAUSAL),
    ],
    "disjoint-keys": [
        (0, 2, 0, 2, FULL),
        (0, 2, 6, 9, FULL),
        (2, 9, 2, 4, FULL),
        (2, 9, 7, 9, FULL),
    ],
    "bottom-right": [(0, 6, 0, 6, FULL), (6, 9, 0, 9, CAUSAL)],
    "crossed": [(0, 3, 3, 7, FULL), (3, 7, 0, 3, FULL)],
}


def _inputs(
    size: int, dtype: torch.dtype = torch.float32, heads: int = 2, head_dim: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, size, heads, head_dim, dtype=dtype).unbind(0)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def _size(rows: Rows) -> int:
    return max(row[1] for row in rows)


@pytest.mark.parametrize("rows", TABLES.values(), ids=TABLES.keys())
def test_values_and_gradients_are_those_of_the_reference(rows: Rows) -> None:
    q, k, v = _inputs(_size(rows))
    segments = Segments.from_rows(rows, _size(rows))
    packed = packed_attention(q, k, v, segments)
    reference = reference_attention(q, k, v, segments.table_S5)
    assert_close(packed, reference, "packed-vs-alone-fp32")
    weights = torch.randn_like(packed)
    for ours, theirs in zip(
        torch.autograd.grad((packed * weights).sum(), (q, k, v)),
        torch.autograd.grad((reference * weights).sum(), (q, k, v)),
        strict=True,
    ):
        assert_close(ours, theirs, "packed-vs-alone-fp32")


@pytest.mark.parametrize("seed", range(3))
def test_many_random_segments(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 20).tolist()
    kinds = np.random.default_rng(seed + 100).integers(0, 2, 20).tolist()
    rows = [(*row[:4], kind) for row, kind in zip(_end_to_end(lengths, FULL), kinds, strict=True)]
    q, k, v = _inputs(sum(lengths))
    segments = Segments.from_rows(rows, sum(lengths))
    reference = reference_attention(q, k, v, segments.table_S5)
    assert_close(packed_attention(q, k, v, segments), reference, "packed-vs-alone-fp32")


@pytest.mark.parametrize(
    "name", ["length-one", "full-and-causal", "shared-prefix", "disjoint-keys"]
)
def test_gradient_is_the_derivative(name: str) -> None:
    rows = TABLES[name]
    segments = Segments.from_rows(rows, _size(rows))
    inputs = _inputs(_size(rows), torch.float64, heads=1)
    assert torch.autograd.gradcheck(lambda q, k, v: packed_attention(q, k, v, segments), inputs)


def test_a_segment_is_the_same_alone() -> None:
    lengths = [3, 30, 8, 1]
    q, k, v = _inputs(sum(lengths))
    packed = packed_attention(q, k, v, Segments.from_lengths(lengths))
    alone = [
        packed_attention(q_n, k_n, v_n, Segments.from_lengths([len(q_n)]))
        for q_n, k_n, v_n in zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    ]
    assert_close(packed, torch.cat(alone), "packed-vs-alone-fp32")


def test_segments_do_not_leak() -> None:
    q, k, v = (x.detach() for x in _inputs(12))
    segments = Segments.from_lengths([5, 7])
    before = packed_attention(q, k, v, segments)
    for x in (q, k, v):
        x[:5] = torch.randn_like(x[:5]) * 100
    after = packed_attention(q, k, v, segments)
    assert torch.equal(after[5:], before[5:])
    assert not torch.equal(after[:5], before[:5])


def test_a_causal_query_does_not_see_the_future() -> None:
    q, k, v = (x.detach() for x in _inputs(6))
    segments = Segments.from_rows([(0, 6, 0, 6, CAUSAL)], 6)
    before = packed_attention(q, k, v, segments)
    k[4:], v[4:] = 9.0, 9.0
    after = packed_attention(q, k, v, segments)
    assert torch.equal(after[:4], before[:4])
    assert not torch.equal(after[4:], before[4:])


def test_inputs_need_not_be_contiguous() -> None:
    q, k, v = torch.randn(9, 2, 3, 4).unbind(2)
    assert not q.is_contiguous()
    segments = Segments.from_lengths([4, 5])
    strided = packed_attention(q, k, v, segments)
    dense = packed_attention(q.contiguous(), k.contiguous(), v.contiguous(), segments)
    assert_close(strided, dense, "exact")


def test_half_precision_stays_near_the_reference() -> None:
    segments = Segments.from_lengths([5, 12])
    q, k, v = (x.detach() for x in _inputs(17))
    half = packed_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), segments)
    assert half.dtype is torch.bfloat16
    assert_close(half, reference_attention(q, k, v, segments.table_S5), "bf16")


def test_no_tokens() -> None:
    q, k, v = _inputs(0)
    assert packed_attention(q, k, v, Segments.from_lengths([])).shape == (0, 2, 4)


def test_a_table_of_other_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="table of 4 tokens for 5 queries"):
        packed_attention(*_inputs(5), Segments.from_lengths([4]))


def test_queries_of_some_tokens_over_the_keys_of_others() -> None:
    """As in decoding: what is cached for a sequence is read by the tokens behind it alone."""
    q, k, v = torch.randn(3, 2, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 8)
    rows = [(0, 2, 1, 5, Kind.CAUSAL), (2, 3, 5, 8, Kind.FULL)]
    out = packed_attention(q, k, v, Segments.from_rows(rows, num_tokens=3, num_keys=9))
    for query, keys in ((0, slice(1, 4)), (1, slice(1, 5)), (2, slice(5, 8))):
        weights = torch.einsum("hk,lhk->hl", q[query], k[keys]).div(8**0.5).softmax(-1)
        assert_close(out[query], torch.einsum("hl,lhk->hk", weights, v[keys]), "fp32")
    k[[0, 8]], v[[0, 8]] = 1e6, -1e6
    again = packed_attention(q, k, v, Segments.from_rows(rows, num_tokens=3, num_keys=9))
    assert_close(again, out, "exact")
