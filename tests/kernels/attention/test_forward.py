"""The forward kernel against the reference; without CUDA in Triton's interpreter."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention.forward import forward
from trimodal_kernels.attention.reference import reference

Make = Callable[..., Any]


def _compare(case: Any, name: str) -> None:
    out, lse = forward(*case[:3], case.tiles, case.extras)
    exact = [x.double() for x in case[:3]]
    wanted = reference(*exact, case.tiles.low_RT, case.tiles.high_RT, case.extras)
    assert_close(out.double(), wanted[0], name)
    assert_close(lse.double(), wanted[1], name)


def test_values_are_those_of_the_reference(make: Make, table: str) -> None:
    _compare(make(table, turned=True, dtype=torch.float64, heads=1), "fp64")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("width", [6, 32, 72])
def test_heads_of_any_even_size(make: Make, turned: bool, width: int) -> None:
    _compare(make("tiles", turned=turned, width=width, heads=1), "fp32")


def test_biases_and_dropout(make: Make) -> None:
    _compare(make("mixed", biased=True, dropout=0.3, dtype=torch.float64), "fp64")


def test_bfloat16(make: Make) -> None:
    _compare(make("mixed", turned=True, dtype=torch.bfloat16, width=16), "bf16")


def test_every_output_is_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make("mixed", turned=True)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    out, lse = forward(*case[:3], case.tiles, case.extras)
    assert torch.isfinite(out).all()
    assert torch.isfinite(lse).all()


def test_inputs_may_be_views(make: Make) -> None:
    case = make("short")
    wide = torch.randn(len(case.q), 5, 3, 8)
    q, k, v = wide[:, 1:3].unbind(2)
    strided = forward(q, k, v, case.tiles, case.extras)
    dense = forward(q.contiguous(), k.contiguous(), v.contiguous(), case.tiles, case.extras)
    assert torch.equal(strided[0], dense[0])


def test_the_same_inputs_give_the_same_bits(make: Make) -> None:
    case = make("mixed", turned=True)
    first, second = (forward(*case[:3], case.tiles, case.extras) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
