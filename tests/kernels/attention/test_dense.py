"""A CPU's blocks against the reference, values and gradients."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels.attention import dense, products
from trimodal_kernels.attention.reference import reference
from trimodal_kernels.blocks import Dense

Make = Callable[..., Any]


def _both(case: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Output, log-sum-exp and gradients of the blocks, then those of the reference."""
    grad = torch.randn(case.v.shape, dtype=torch.float64).to(case.v.dtype)
    plan = Dense.unpacked(*case.segments.plan("cpu", case.q.shape[1]))
    out, lse, kept = dense.forward(*case[:3], plan, case.extras, True, True)
    made = [
        x for x in dense.backward(grad, *case[:3], out, kept, plan, case.extras) if x is not None
    ]
    leaves = [x.requires_grad_() for x in (*case[:3], *case.extras[:2]) if x is not None]
    low, high = case.segments.plan("reference", 0).tables
    wanted, wanted_lse = reference(*case[:3], low, high, case.extras)
    return [out, lse, *made], [wanted, wanted_lse, *torch.autograd.grad(wanted, leaves, grad)]


@pytest.mark.parametrize("longest", [0, 12, 128])
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_give_what_the_reference_gives(
    make: Make, table: str, turned: bool, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LONGEST_RAGGED", longest)
    for ours, theirs in zip(*_both(make(table, turned=turned, dtype=torch.float64)), strict=True):
        assert_close(ours, theirs, "fp64")


@pytest.mark.parametrize("units", [False, True])
def test_bfloat16_stays_near_the_exact(
    make: Make, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "has_matrix_units", lambda: units)
    case = make("mixed", turned=True, dtype=torch.bfloat16, width=32)
    ours, rounded = _both(case)
    assert [x.dtype for x in ours] == [x.dtype for x in rounded]
    for made, wanted in zip(ours, rounded, strict=True):
        error = (made.double() - wanted.double()).norm() / wanted.double().norm()
        assert error < (1e-2 if units else 5e-3)


def test_without_a_gradient_nothing_is_kept(make: Make) -> None:
    case = make("mixed", turned=True)
    plan = Dense.unpacked(*case.segments.plan("cpu", 2))
    kept = dense.forward(*case[:3], plan, case.extras, True, False)
    free = dense.forward(*case[:3], plan, case.extras, False, False)
    assert_close(free[0], kept[0], "fp32")
    assert (free[2], len(free[1]), len(kept[1])) == ([], 0, 0)
    assert [tuple(x.shape) for x in kept[2]] == dense.kept_shapes(case.q, plan)


def test_padding_is_never_read(make: Make) -> None:
    """Slots beyond the end repeat token 0: what stands there must not matter to others."""
    case = make("short")
    plan = Dense.unpacked(*case.segments.plan("cpu", 2))
    before = dense.forward(*case[:3], plan, case.extras, True, False)[0]
    for x in case[:3]:
        x[0] = 1e4
    after = dense.forward(*case[:3], plan, case.extras, True, False)[0]
    assert torch.equal(before[1:], after[1:])
