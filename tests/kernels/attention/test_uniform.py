"""Segments of one length: the same as in blocks that were gathered."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention import dense, products, uniform
from trimodal_kernels.blocks import Dense

Make = Callable[..., Any]


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_nothing_changes_for_not_being_moved(
    make: Make, turned: bool, multiplied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dense, products, uniform):
        monkeypatch.setattr(module, "multiplies", lambda *a, **k: multiplied)
    case = make("equal", turned=turned, dtype=torch.float64)
    plan = Dense.unpacked(*case.segments.plan("cpu", 2))
    assert plan.uniform == 14
    grad, found = torch.randn_like(case.v), []
    for chosen in (plan, case.segments.blocks.dense(2)):
        given = (*case[:3], chosen, case.extras)
        out, lse, kept = dense.forward(*given, True, True)
        assert [tuple(x.shape) for x in kept] == dense.kept_shapes(case.q, chosen)
        made = dense.backward(grad, *case[:3], out, kept, chosen, case.extras)
        found.append([out, lse, *(x for x in made if x is not None)])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, "fp64")


def test_what_is_kept_is_no_view_of_what_was_given(make: Make) -> None:
    case = make("equal")
    out, _, kept = uniform.forward(*case[:3], 14, case.extras, True, False)
    given = {x.untyped_storage().data_ptr() for x in case[:3]}
    storages = [x.untyped_storage().data_ptr() for x in (out, *kept)]
    assert not given & set(storages)
    assert len(set(storages)) == len(storages)
