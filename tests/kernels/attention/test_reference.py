"""The reference against attention computed query by query."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels import Kind
from trimodal_kernels.attention import Extras
from trimodal_kernels.attention.reference import reference
from trimodal_kernels.attention.turning import turn

Make = Callable[..., Any]


def _by_query(case: Any, turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v, segments, _, extras = case
    if turned:
        q, k = (
            turn(x, w, extras.cos_Tk, extras.sin_Tk, extras.eps)
            for x, w in ((q, extras.q_weight_K), (k, extras.k_weight_K))
        )
    out, lse = torch.empty_like(v), torch.empty(v.shape[1], len(v), dtype=v.dtype)
    for group in segments.groups:
        for query in range(*group[0][:2]):
            keys = [
                key
                for _, q_end, k_start, k_end, kind in group
                for key in range(k_start, k_end - (q_end - 1 - query) * (kind == Kind.CAUSAL))
            ]
            score = torch.einsum("hk,lhk->hl", q[query], k[keys]) / q.shape[-1] ** 0.5
            if extras.bias_HB is not None:
                apart = [2 * (key - query) for key in keys]
                score = score + extras.bias_HB[:, [min(max(d, -3), 3) + 3 for d in apart]]
            out[query] = torch.einsum("hl,lhk->hk", score.softmax(-1), v[keys])
            lse[:, query] = score.logsumexp(-1)
    return out, lse


@pytest.mark.parametrize(("turned", "biased"), [(False, False), (True, False), (True, True)])
def test_every_query_is_the_mean_of_what_it_sees(
    make: Make, table: str, turned: bool, biased: bool
) -> None:
    case = make(table, turned=turned, biased=biased, dtype=torch.float64)
    found = reference(case.q, case.k, case.v, case.tiles.low_RT, case.tiles.high_RT, case.extras)
    for ours, theirs in zip(found, _by_query(case, turned), strict=True):
        assert_close(ours, theirs, "fp64")


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    size = 120
    v = torch.eye(size, dtype=torch.float64)[:, None, :]
    q, k = torch.zeros(2, size, 1, size, dtype=torch.float64)
    low, high = torch.zeros(1, size), torch.full((1, size), size)
    for rate in (0.1, 0.5):
        weight_TL = reference(q, k, v, low, high, Extras(dropout=rate, seed=3))[0][:, 0]
        assert abs((weight_TL == 0).double().mean() - rate) < 0.02
        assert_close(weight_TL.max(), torch.tensor(1 / size / (1 - rate)).double(), "fp32")
    again = reference(q, k, v, low, high, Extras(dropout=0.5, seed=3))[0][:, 0]
    other = reference(q, k, v, low, high, Extras(dropout=0.5, seed=4))[0][:, 0]
    assert torch.equal(weight_TL, again)
    assert not torch.equal(weight_TL, other)
