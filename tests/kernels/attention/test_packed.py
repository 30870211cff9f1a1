"""Packed attention against one T x T mask, values and gradients."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import Kind, Segments, packed_attention
from trimodal_kernels.attention import Extras, attend
from trimodal_kernels.dispatch import VARIABLE

FULL, CAUSAL = Kind.FULL, Kind.CAUSAL


def _inputs(
    size: int, dtype: torch.dtype = torch.float32, heads: int = 2, head_dim: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, size, heads, head_dim, dtype=dtype).unbind(0)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def _random(seed: int) -> tuple[Segments, int]:
    draws = np.random.default_rng(seed)
    lengths, kinds = draws.integers(1, 40, 20).tolist(), draws.integers(0, 2, 20).tolist()
    ends = np.cumsum(lengths).tolist()
    rows = [(e - n, e, e - n, e, k) for e, n, k in zip(ends, lengths, kinds, strict=True)]
    return Segments.from_rows(rows, ends[-1]), ends[-1]


@pytest.mark.parametrize("seed", range(3))
def test_many_random_segments(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, size = _random(seed)
    inputs = _inputs(size)
    packed = packed_attention(*inputs, segments)
    monkeypatch.setenv(VARIABLE, "reference")
    assert_close(packed, packed_attention(*inputs, segments), "packed-vs-alone-fp32")


def _turned(q: Tensor, k: Tensor, v: Tensor, weights: Tensor, segments: Segments) -> Tensor:
    angle = torch.linspace(0, 3, len(q) * q.shape[2] // 2, dtype=q.dtype).view(len(q), -1)
    norms = (weights[0], weights[1])
    return packed_attention(q, k, v, segments, norms=norms, rotary=(angle.cos(), angle.sin()))


@pytest.mark.parametrize("way", ["auto", "reference", "triton"])
def test_gradient_is_the_derivative(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, way)
    rows = [(0, 3, 0, 3, FULL), (3, 5, 0, 5, CAUSAL), (5, 6, 5, 6, FULL)]
    segments = Segments.from_rows(rows, 6)
    inputs = (*_inputs(6, torch.float64, heads=1), torch.rand(2, 4, dtype=torch.float64) + 0.5)
    inputs[-1].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, k, v, w: _turned(q, k, v, w, segments), inputs, fast_mode=way == "triton"
    )


@pytest.mark.parametrize("way", ["auto", "triton"])
def test_biases_and_dropout_have_the_reference_s_gradients(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments, found = Segments.from_lengths([5, 9]), []
    q, k, v = _inputs(14)
    table = torch.randn(2, 5, requires_grad=True)
    position = torch.arange(14, dtype=torch.int32)
    for chosen in (way, "reference"):
        monkeypatch.setenv(VARIABLE, chosen)
        out = packed_attention(q, k, v, segments, bias=(table, position), dropout=0.4, seed=5)
        found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v, table))))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, "fp32-gradient")


@pytest.mark.parametrize("way", ["auto", "reference", "triton"])
def test_the_log_sum_exp_is_there_when_wanted(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, way)
    q, k, v = _inputs(9)
    _, lse = attend(q, k, v, Segments.from_lengths([4, 5]), Extras(), wants_lse=True)
    score_HTL = torch.einsum("qhk,lhk->hql", q, k) / 2
    wanted = torch.cat([score_HTL[:, :4, :4].logsumexp(-1), score_HTL[:, 4:, 4:].logsumexp(-1)], 1)
    assert_close(lse, wanted, "fp32")
    assert not lse.requires_grad


def test_segments_of_one_length_go_to_pytorch(interpreted: None) -> None:
    q, k, v = _inputs(12)
    out = packed_attention(q, k, v, Segments.from_lengths([4, 4, 4]))
    assert out.grad_fn is not None
    assert "packed_attention" not in str(out.grad_fn.next_functions)
    ragged = packed_attention(q, k, v, Segments.from_rows([(0, 12, 0, 12, CAUSAL)], 12))
    assert "packed_attention" in str(ragged.grad_fn)


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
    assert_close(half, packed_attention(q, k, v, segments), "bf16")


def test_no_tokens() -> None:
    q, k, v = _inputs(0)
    assert packed_attention(q, k, v, Segments.from_lengths([])).shape == (0, 2, 4)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"norms": (torch.ones(3), torch.ones(4))}, r"q_weight_K is \(3,\), not \(4,\)"),
        ({"rotary": (torch.ones(5, 2), torch.ones(4, 2))}, r"sin_Tk is \(4, 2\), not \(5, 2\)"),
        ({"dropout": 1.0}, "dropout 1 is not in"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        packed_attention(*_inputs(5), Segments.from_lengths([5]), **options)


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
