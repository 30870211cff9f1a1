"""What PyTorch checks of a custom operation: schema, fakes, autograd, compilation."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from trimodal.testing import assert_close
from trimodal_kernels import packed_attention
from trimodal_kernels.attention.operator import attention, attention_backward
from trimodal_kernels.dispatch import VARIABLE

Make = Callable[..., Any]


@pytest.mark.parametrize("way", ["cpu", "triton"])
@pytest.mark.parametrize("keeps", [False, True])
def test_the_operation_keeps_its_promises(make: Make, way: str, keeps: bool) -> None:
    case = make("prefix", turned=True)
    for x in (*case[:3], *case.extras[:2]):
        x.requires_grad_(keeps)
    plan = case.segments.plan(way, 2)
    torch.library.opcheck(attention, (*case[:3], *case.extras, *plan, way, keeps, True))


@pytest.mark.parametrize("way", ["cpu", "triton"])
def test_its_backward_keeps_its_promises(make: Make, way: str) -> None:
    case = make("prefix", turned=True)
    given = (*case[:3], *case.extras, *case.segments.plan(way, 2), way)
    out, lse, kept = attention(*given, True, False)
    torch.library.opcheck(attention_backward, (torch.randn_like(out), *given, out, lse, kept))


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_code_finds_the_strides_that_it_was_told(
    make: Make, table: str, dtype: torch.dtype, across: bool
) -> None:
    """Of which `opcheck` says nothing."""
    case = make(table, dtype=dtype)
    q, k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) if across else x for x in case[:3])
    given = (q, k, v, *case.extras, *case.segments.plan("cpu", 2), "cpu")
    made = attention(*given, True, True)
    graded = attention_backward(torch.randn_like(q), *given, *made)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs = tree_map_only(torch.Tensor, mode.from_tensor, given)
        told = attention(*inputs, True, True)
        told_grads = attention_backward(mode.from_tensor(torch.randn_like(q)), *inputs, *told)
    for real, fake in zip(
        tree_leaves((made, graded)), tree_leaves((told, told_grads)), strict=True
    ):
        assert (real.shape, real.dtype) == (fake.shape, fake.dtype)
        strides = zip(real.shape, real.stride(), fake.stride(), strict=True)
        assert all(a == b for size, a, b in strides if size > 1)


@pytest.mark.parametrize("way", ["auto", "triton"])
def test_a_compiled_step_is_the_same(make: Make, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, way)
    case = make("prefix", turned=True)
    segments, extras = case.segments, case.extras
    segments.prepare(2)

    def loss(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        norms, rotary = (extras[0], extras[1]), (extras[2], extras[3])
        return packed_attention(q, k, v, segments, norms=norms, rotary=rotary).square().sum()

    inputs = [x.requires_grad_() for x in case[:3]]
    plain = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(torch.autograd.grad(compiled(*inputs), inputs), plain, strict=True):
        assert_close(ours, theirs, "fp32")


def test_autocast_computes_in_what_it_is_given(make: Make) -> None:
    case = make("prefix", turned=True, dtype=torch.bfloat16, width=16)
    weights = [x.requires_grad_() for x in case.extras[:2]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = packed_attention(
            *case[:3], case.segments, norms=(weights[0], weights[1]), rotary=case.extras[2:4]
        )
    assert out.dtype == torch.bfloat16
    assert [x.dtype for x in torch.autograd.grad(out.sum(), weights)] == [torch.float32] * 2
