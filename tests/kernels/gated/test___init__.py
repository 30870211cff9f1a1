"""Every implementation against plain torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels import gated
from trimodal_kernels.dispatch import VARIABLE
from trimodal_kernels.gated import cpu


@pytest.fixture(params=["reference", "auto", "cpu's own", "triton"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "auto" if request.param == "cpu's own" else request.param
    monkeypatch.setenv(VARIABLE, name)
    if name != request.param:
        monkeypatch.setattr(cpu, "LEAST", 0)


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    gate, up = (2 * torch.randn(shape, dtype=torch.float64) for _ in range(2))
    return gate.to(dtype).requires_grad_(), up.to(dtype).requires_grad_()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (3, 8), (5, 7), (2, 3, 8)])
def test_it_is_swiglu(shape: tuple[int, ...]) -> None:
    gate, up = pair(*shape)
    weight = torch.randn(shape, dtype=torch.float64)
    expected = F.silu(gate) * up
    found = gated(gate, up)
    assert_close(found, expected, "fp64")
    grads = torch.autograd.grad((found * weight).sum(), (gate, up))
    right = torch.autograd.grad((expected * weight).sum(), (gate, up))
    for grad, one in zip(grads, right, strict=True):
        assert_close(grad, one, "fp64")


@pytest.mark.usefixtures("path")
def test_the_gradient_is_the_derivative() -> None:
    assert torch.autograd.gradcheck(gated, pair(3, 5))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_near_double(dtype: torch.dtype) -> None:
    gate, up = pair(4, 24, dtype=dtype)
    found, expected = gated(gate, up), F.silu(gate.double()) * up.double()
    kind = "fp32" if dtype is torch.float32 else "bf16"
    assert found.dtype is dtype
    assert_close(found, expected, kind)
    grads = (torch.autograd.grad(x.double().sum(), (gate, up)) for x in (found, expected))
    for grad, right in zip(*grads, strict=True):
        assert_close(grad, right, kind)


@pytest.mark.usefixtures("path")
def test_large_inputs_give_no_nan() -> None:
    gate = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    found = gated(gate, torch.ones(3))
    assert_close(found, [1e4, 0.0, 0.0], "fp32")
    assert_close(torch.autograd.grad(found.sum(), gate)[0], [1.0, 0.0, 0.5], "fp32")


@pytest.mark.usefixtures("path")
def test_inputs_and_gradients_need_not_be_contiguous() -> None:
    gate, up = pair(6, 4)
    turned, every_other = (
        gate.detach().T.contiguous().T,
        up.detach().repeat_interleave(2, 1)[:, ::2],
    )
    found = gated(turned.requires_grad_(), every_other.requires_grad_())
    grads = torch.autograd.grad(found.mT.square().sum(), (turned, every_other))
    right = torch.autograd.grad((F.silu(gate) * up).square().sum(), (gate, up))
    for grad, one in zip(grads, right, strict=True):
        assert_close(grad, one, "fp64")


@pytest.mark.usefixtures("path")
def test_it_compiles_into_one_graph() -> None:
    gate, up = pair(3, 8)
    compiled = torch.compile(gated, fullgraph=True, backend="aot_eager")
    assert_close(compiled(gate, up), gated(gate, up), "fp64")
    runs = [torch.autograd.grad(f(gate, up).sum(), (gate, up)) for f in (compiled, gated)]
    for grad, right in zip(*runs, strict=True):
        assert_close(grad, right, "fp64")


def test_shapes_and_types_must_agree() -> None:
    with pytest.raises(ValueError, match=r"a gate \(2, 3\) of torch.float32 for \(3, 3\)"):
        gated(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"of torch\.bfloat16"):
        gated(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bfloat16))
