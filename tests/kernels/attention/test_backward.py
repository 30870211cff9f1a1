"""The backward kernels against the reference's gradients; without CUDA in the interpreter."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention import backward as launches
from trimodal_kernels.attention.extras import Gradients
from trimodal_kernels.attention.forward import forward
from trimodal_kernels.attention.reference import reference

Make = Callable[..., Any]


def _made(case: Any, grad: torch.Tensor) -> Gradients:
    out, lse = forward(*case[:3], case.tiles, case.extras)
    return launches.backward(grad, *case[:3], out, lse, case.tiles, case.extras)


def _wanted(case: Any, grad: torch.Tensor) -> list[torch.Tensor | None]:
    extras = case.extras
    given = [*case[:3], extras.q_weight_K, extras.k_weight_K, extras.bias_HB]
    leaves = [None if x is None else x.double().requires_grad_() for x in given]
    extras = extras._replace(q_weight_K=leaves[3], k_weight_K=leaves[4], bias_HB=leaves[5])
    out, _ = reference(*leaves[:3], case.tiles.low_RT, case.tiles.high_RT, extras)
    out.backward(grad.double())
    return [None if x is None else x.grad for x in leaves]


def _compare(case: Any, name: str) -> None:
    grad = torch.randn(case.v.shape, dtype=torch.float64).to(case.v.dtype)
    for ours, theirs in zip(_made(case, grad), _wanted(case, grad), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert_close(ours.double(), theirs, name)


def test_gradients_are_those_of_the_reference(make: Make, table: str) -> None:
    _compare(make(table, turned=True, dtype=torch.float64, heads=1), "fp64")


def test_biases_and_dropout(make: Make) -> None:
    _compare(
        make("mixed", turned=True, biased=True, dropout=0.3, dtype=torch.float64), "fixed-point"
    )


@pytest.mark.parametrize("width", [32, 72])
def test_heads_of_other_sizes(make: Make, width: int) -> None:
    _compare(make("prefix", turned=True, width=width, heads=1), "fp32-gradient")


def test_bfloat16(make: Make) -> None:
    _compare(make("mixed", turned=True, dtype=torch.bfloat16, width=16), "bf16")


def test_every_gradient_is_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make("unseen-keys", turned=True)
    grad = torch.randn_like(case.v)
    new = torch.Tensor.new_empty

    def poisoned(*given: Any, **options: Any) -> torch.Tensor:
        made = new(*given, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    made = _made(case, grad)
    assert all(torch.isfinite(x).all() for x in made if x is not None)


def test_a_gpu_before_hopper_is_given_smaller_programs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "arch_of", lambda device: 80)
    _compare(make("mixed", turned=True, dtype=torch.float64, width=72, heads=1), "fp64")


@pytest.mark.parametrize("biased", [False, True])
def test_the_same_inputs_give_the_same_bits(make: Make, biased: bool) -> None:
    case = make("mixed", turned=True, biased=biased)
    grad = torch.randn_like(case.v)
    first, second = _made(case, grad), _made(case, grad)
    for a, b in zip(first, second, strict=True):
        assert a is None or (b is not None and torch.equal(a, b))
