import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import trimodal_kernels.contrastive
from trimodal.testing import assert_close
from trimodal_kernels import (
    info_nce,
    info_nce_two_sided,
    sigmoid_contrast,
    sigmoid_contrast_two_sided,
)
from trimodal_kernels.dispatch import VARIABLE

APART = torch.arange(3)
BIAS = torch.tensor(-2.0, dtype=torch.float64)


@pytest.fixture(params=["dense", "chunked", "reference"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways on a CPU: few products at once, many some at a time, and the reference."""
    if request.param == "chunked":
        monkeypatch.setattr(trimodal_kernels.contrastive, "FEW", -1)
    if request.param == "reference":
        monkeypatch.setattr(trimodal_kernels.contrastive, "FEW", -1)
        monkeypatch.setenv(VARIABLE, "reference")
    return request.param


def units(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 8, dtype=torch.float64, generator=generator), dim=1)


def temperature(scale: float) -> Tensor:
    return torch.tensor(scale, dtype=torch.float64)


def test_info_nce_of_one_positive_is_cross_entropy() -> None:
    a, b, scale = units(3), units(3, 1), torch.tensor(7.0)
    expected = F.cross_entropy(scale * a @ b.T, torch.arange(3), reduction="none")
    assert_close(info_nce(a, b, APART, APART, scale), expected, "fp64")


def test_info_nce_of_equal_vectors_is_log_of_their_number() -> None:
    a = units(1).expand(3, 8)
    loss = info_nce(a, a, APART, APART, temperature(10))
    assert_close(loss, torch.full((3,), math.log(3), dtype=torch.float64), "fp64")


def test_several_positives_are_averaged() -> None:
    a, b, scale = units(2), units(3, 1), temperature(3)
    log_p = (scale * a @ b.T).log_softmax(1)
    expected = [-(log_p[0, 0] + log_p[0, 1]) / 2, -log_p[1, 2]]
    loss = info_nce(a, b, torch.tensor([5, 6]), torch.tensor([5, 5, 6]), scale)
    assert_close(loss, torch.stack(expected), "fp64")


def test_ids_may_be_any_numbers_of_63_bits() -> None:
    a, b, scale = units(3), units(3, 1), temperature(7)
    far = torch.tensor([2**63 - 1, 2**63 - 2, 2**62])
    assert_close(info_nce(a, b, far, far, scale), info_nce(a, b, APART, APART, scale), "exact")
    losses = info_nce_two_sided(a, b, far, far.flip(0), scale)
    expected = info_nce_two_sided(a, b, APART, APART.flip(0), scale)
    assert all(torch.equal(x, y) for x, y in zip(losses, expected, strict=True))


@pytest.mark.parametrize("contrast", [info_nce, sigmoid_contrast])
def test_columns_that_take_no_part_change_nothing(contrast: Callable[..., Tensor]) -> None:
    a, b = units(3), units(4, 1)
    more = (temperature(5),) if contrast is info_nce else (temperature(5), BIAS)
    column, groups = torch.tensor([True, True, True, False]), torch.tensor([0, 1, 2, 2])
    loss = contrast(a, b, APART, groups, *more, column_M=column)
    assert_close(loss, contrast(a, b[:3], APART, groups[:3], *more), "fp64")


@pytest.mark.parametrize("candidates", [True, False])
def test_a_row_without_a_positive_has_loss_and_gradient_0(candidates: bool) -> None:
    a = units(2).requires_grad_()
    column = torch.full((3,), candidates)
    column[0] = True
    loss = info_nce(a, units(3, 1), torch.tensor([0, 9]), APART, temperature(5), column)
    assert loss[1] == 0
    loss.sum().backward()
    assert a.grad is not None
    assert not a.grad[1].any()
    assert torch.isfinite(a.grad).all()


def test_without_candidates_everything_is_0() -> None:
    a, b, scale = units(2).requires_grad_(), units(3).requires_grad_(), temperature(5)
    loss = info_nce(a, b, APART[:2], APART, scale, torch.zeros(3, dtype=torch.bool))
    loss = loss + info_nce(a, b[:0], APART[:2], APART[:0], scale)
    loss.sum().backward()
    assert not loss.any()
    assert a.grad is not None
    assert b.grad is not None
    assert not a.grad.any()
    assert not b.grad.any()


@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_descent_pulls_positives_together_and_pushes_others_apart(name: str) -> None:
    a, b = units(3).requires_grad_(), units(3, 1)
    arguments = (a, b, APART, APART, temperature(5))
    loss = info_nce(*arguments) if name == "infonce" else sigmoid_contrast(*arguments, BIAS / 2)
    loss.sum().backward()
    assert a.grad is not None
    change = -(a.grad @ b.T)
    assert (change.diagonal() > 0).all()
    assert (change.diagonal() > change.masked_fill(torch.eye(3).bool(), -9).amax(1)).all()


def test_sigmoid_by_hand() -> None:
    a, b = units(1), units(2, 1)
    x = 4.0 * a @ b.T - 2.0
    expected = -(F.logsigmoid(x[:, 0]) + F.logsigmoid(-x[:, 1]))
    loss = sigmoid_contrast(a, b, APART[:1], APART[:2], torch.tensor(4.0), BIAS.float())
    assert_close(loss, expected, "fp64")


def test_both_sides_are_what_each_is_alone() -> None:
    a, b, groups = units(4), units(6, 1), torch.tensor([3, 1, 1, 7, 3, 5])
    row, column = torch.tensor([1, 1, 0, 1]).bool(), torch.tensor([1, 0, 1, 1, 1, 1]).bool()
    scale, ids = temperature(5), (groups[:4], groups)
    for row_N, column_M in ((None, None), (row, None), (None, column), (row, column)):
        loss_N, loss_M = info_nce_two_sided(a, b, *ids, scale, row_N, column_M)
        assert_close(loss_N, info_nce(a, b, ids[0], ids[1], scale, column_M), "fp64")
        assert_close(loss_M, info_nce(b, a, ids[1], ids[0], scale, row_N), "fp64")
        loss_N, loss_M = sigmoid_contrast_two_sided(a, b, *ids, scale, BIAS, row_N, column_M)
        assert_close(loss_N, sigmoid_contrast(a, b, *ids, scale, BIAS, column_M), "fp64")
        assert_close(loss_M, sigmoid_contrast(b, a, ids[1], ids[0], scale, BIAS, row_N), "fp64")


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_in_double_precision(masked: bool) -> None:
    a, b = units(3).requires_grad_(), units(4, 1).requires_grad_()
    scale = temperature(3).requires_grad_()
    bias = temperature(-1).requires_grad_()
    groups = torch.tensor([4, 5, 6]), torch.tensor([4, 4, 5, 5])
    row = torch.tensor([1, 0, 1]).bool() if masked else None
    column = torch.tensor([1, 1, 1, 0]).bool() if masked else None

    def softmax(a: Tensor, b: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        one = info_nce(a, b, *groups, scale, column)
        return (one, *info_nce_two_sided(a, b, *groups, scale, row, column))

    def sigmoid(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        one = sigmoid_contrast(a, b, *groups, scale, bias, column)
        return (one, *sigmoid_contrast_two_sided(a, b, *groups, scale, bias, row, column))

    assert torch.autograd.gradcheck(softmax, (a, b, scale))
    assert torch.autograd.gradcheck(sigmoid, (a, b, scale, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_summed_in_32(dtype: torch.dtype) -> None:
    a, b = (x.to(dtype).requires_grad_() for x in (units(3), units(3, 1)))
    scale = torch.tensor(100.0, requires_grad=True)
    loss = info_nce(a, b, APART, APART, scale)
    assert loss.dtype is torch.float32
    expected = info_nce(a.double(), b.double(), APART, APART, scale.double())
    assert_close(loss, expected, "fp32-gradient")
    for x, y in zip(
        torch.autograd.grad(loss.sum(), (a, b, scale)),
        torch.autograd.grad(expected.sum(), (a, b, scale)),
        strict=True,
    ):
        assert x.dtype is y.dtype
        assert_close(x, y, "bf16")


def test_autocast_rounds_embeddings_and_nothing_else() -> None:
    a, b, scale = units(3).float(), units(3, 1).float(), torch.tensor(100.0)
    rounded = info_nce(a.bfloat16(), b.bfloat16(), APART, APART, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(info_nce(a, b, APART, APART, scale), rounded, "exact")


def test_views_and_numbers_of_one_element_serve_too() -> None:
    a, b = units(8).view(4, 2, 8)[:, 1], units(8, 1).view(4, 2, 8)[:, 0]
    groups = torch.arange(8)[::2]
    loss = info_nce(a, b, groups, groups, torch.full((1,), 5.0))
    plain = info_nce(a.clone(), b.clone(), groups.clone(), groups.clone(), torch.tensor(5.0))
    assert_close(loss, plain, "exact")


def test_what_does_not_fit_is_refused() -> None:
    a, b, scale = units(3), units(3, 1), temperature(3)
    with pytest.raises(ValueError, match=r"rows \(3, 8\) and columns \(3, 7\)"):
        info_nce(a, b[:, :7], APART, APART, scale)
    with pytest.raises(ValueError, match=r"group_M is \(2,\) for 3 embeddings"):
        info_nce(a, b, APART, APART[:2], scale)
    with pytest.raises(ValueError, match=r"row_N is \(2,\) for 3 embeddings"):
        info_nce_two_sided(a, b, APART, APART, scale, row_N=torch.ones(2).bool())
    with pytest.raises(ValueError, match="one number each"):
        sigmoid_contrast(a, b, APART, APART, scale, torch.zeros(2))
    with pytest.raises(ValueError, match=r"rows are torch.float64 and columns torch.float32"):
        info_nce(a, b.float(), APART, APART, scale)
