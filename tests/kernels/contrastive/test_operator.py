from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import trimodal_kernels.contrastive
from trimodal.testing import assert_close
from trimodal_kernels import info_nce, info_nce_two_sided, sigmoid_contrast
from trimodal_kernels.contrastive import operator
from trimodal_kernels.contrastive.pairs import Pairs
from trimodal_kernels.dispatch import VARIABLE

GROUPS = torch.tensor([3, 1, 1, 7]), torch.tensor([1, 3, 9, 3, 1])


def units(rows: int) -> Tensor:
    return F.normalize(torch.randn(rows, 8), dim=1).requires_grad_()


@pytest.mark.parametrize("path", ["auto", "reference", "triton"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_it_is_registered_as_torch_wants(
    problem: Callable[..., Pairs], monkeypatch: pytest.MonkeyPatch, path: str, sigmoid: bool
) -> None:
    monkeypatch.setenv(VARIABLE, path)
    pairs = problem(4, 6, both=not sigmoid, sigmoid=sigmoid, masked=sigmoid, dtype=torch.float32)
    leaves = {"a_NE": pairs.a_NE, "b_ME": pairs.b_ME, "scale": pairs.scale}
    arguments = pairs._replace(**{name: x.requires_grad_() for name, x in leaves.items()})
    torch.library.opcheck(operator.contrast, tuple(arguments))


@pytest.mark.parametrize("few", [-1, 1000])
def test_it_is_compiled_in_one_piece(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(trimodal_kernels.contrastive, "FEW", few)

    def total(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        loss_N, loss_M = info_nce_two_sided(a, b, *GROUPS, scale)
        return loss_N.sum() + loss_M.mean() + sigmoid_contrast(a, b, *GROUPS, scale, bias).sum()

    leaves = (units(4), units(5), torch.tensor(5.0, requires_grad=True))
    leaves = (*leaves, torch.tensor(-1.0, requires_grad=True))
    expected = torch.autograd.grad(total(*leaves), leaves)
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*leaves), leaves)
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, "fp32")


@pytest.mark.parametrize("path", ["auto", "reference"])
def test_autocast_around_the_backward_pass_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(trimodal_kernels.contrastive, "FEW", -1)
    monkeypatch.setenv(VARIABLE, path)
    a, b = units(4), units(5)
    plain = torch.autograd.grad(info_nce(a, b, *GROUPS, torch.tensor(5.0)).sum(), (a, b))
    loss = info_nce(a, b, *GROUPS, torch.tensor(5.0)).sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(loss, (a, b))
    assert all(torch.equal(x, y) for x, y in zip(found, plain, strict=True))


def test_a_side_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimodal_kernels.contrastive, "FEW", -1)
    a, b = units(4), units(5)
    loss_N, loss_M = info_nce_two_sided(a, b.detach(), *GROUPS, torch.tensor(5.0))
    (grad,) = torch.autograd.grad(loss_M.sum(), a, retain_graph=True)
    (expected,) = torch.autograd.grad(
        info_nce(b.detach(), a, GROUPS[1], GROUPS[0], torch.tensor(5.0)).sum(), a
    )
    assert_close(grad, expected, "fp32")
    assert loss_N.requires_grad
