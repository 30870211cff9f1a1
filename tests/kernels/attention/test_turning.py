"""Norms and rotations without a graph against autograd."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention.turning import Turned, turn, turn_pair


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_values_and_gradients_are_those_of_autograd(normed: bool, rotated: bool) -> None:
    x = torch.randn(5, 3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True) if normed else None
    angle = torch.randn(5, 4, dtype=torch.float64)
    angles = (angle.cos(), angle.sin()) if rotated else (None, None)
    expected = turn(x, weight, *angles, 1e-6)
    grad = torch.randn_like(expected)
    given = [x] if weight is None else [x, weight]
    wanted = torch.autograd.grad(expected, given, grad) if normed or rotated else (grad,)
    turned = Turned(x.detach(), None if weight is None else weight.detach(), *angles, 1e-6)
    grad_x, grad_weight = turned.backward(grad.clone())
    assert_close(grad_x, wanted[0], "fp64")
    if weight is None:
        assert grad_weight is None
    else:
        assert grad_weight is not None
        assert_close(grad_weight, wanted[1], "fp64")


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_pair_is_what_each_is_alone(normed: bool, rotated: bool, dtype: torch.dtype) -> None:
    exact = torch.promote_types(dtype, torch.float32)
    q, k = torch.randn(2, 5, 3, 8).to(dtype)
    weights = (torch.rand(8) + 0.5, torch.rand(8) + 0.5) if normed else None
    angle = torch.randn(5, 4)
    rotary = (angle.cos(), angle.sin()) if rotated else None
    given = q.clone(), k.clone()
    for x, made, weight in zip(
        given, turn_pair(q, k, weights, rotary, 1e-6), weights or (None, None), strict=True
    ):
        expected = turn(x.to(exact), weight, *rotary or (None, None), 1e-6)
        assert made.dtype == exact
        assert_close(made, expected, "fp32")
    assert_close(torch.stack((q, k)), torch.stack(given), "exact")


def test_more_keys_than_queries_are_normed_alone() -> None:
    q, k, weights = torch.randn(2, 3, 8), torch.randn(5, 3, 8), (torch.rand(8), torch.rand(8))
    given = q.clone(), k.clone()
    made = turn_pair(q, k, weights, None, 1e-6)
    for x, weight, found in zip(given, weights, made, strict=True):
        assert_close(found, turn(x, weight, None, None, 1e-6), "fp32")
    assert_close(torch.cat((q, k)), torch.cat(given), "exact")


def test_the_norm_makes_heads_of_one_size() -> None:
    x = turn(torch.randn(4, 2, 16) * 30, torch.ones(16), None, None, 1e-6)
    assert_close(x.square().mean(-1), torch.ones(4, 2), "fp32")


def test_a_rotation_keeps_what_is_between_two_positions() -> None:
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64)
    angle = torch.arange(6.0, dtype=torch.float64)[:, None] * torch.rand(4, dtype=torch.float64)
    q6, k6 = (turn(x.expand(6, 1, 8), None, angle.cos(), angle.sin(), 0.0)[:, 0] for x in (q, k))
    assert_close((q6[2:] * k6[:4]).sum(-1), (q6[2] @ k6[0]).expand(4), "fp64")


def test_bfloat16_is_rounded_once() -> None:
    x, weight = torch.randn(5, 2, 16).bfloat16(), torch.rand(16) + 0.5
    angle = torch.randn(5, 8)
    made = turn(x, weight, angle.cos(), angle.sin(), 1e-6)
    exact = turn(x.double(), weight.double(), angle.cos(), angle.sin(), 1e-6)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, exact.float().bfloat16())
