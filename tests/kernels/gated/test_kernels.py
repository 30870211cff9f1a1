"""The Triton kernels against plain torch, in the interpreter or on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from trimodal.testing import assert_close
from trimodal_kernels import gated
from trimodal_kernels.gated.kernels import backward, builds, forward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("size", [1, 15, 16, 17, 24, 40])
def test_every_number_is_written(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(torch, "empty_like", lambda x: torch.full_like(x, float("nan")))
    gate, up, grad = (torch.randn(size, dtype=torch.float64, device=DEVICE) for _ in range(3))
    assert_close(forward(gate, up, block=16), F.silu(gate) * up, "fp64")
    share = gate.sigmoid()
    grad_gate, grad_up = backward(gate, up, grad, block=16)
    assert_close(grad_gate, grad * up * share * (1 + gate * (1 - share)), "fp64")
    assert_close(grad_up, grad * gate * share, "fp64")


def test_nothing_launches_nothing() -> None:
    nothing = torch.zeros(0, 8, device=DEVICE)
    assert forward(nothing, nothing).shape == (0, 8)
    assert [grad.shape for grad in backward(nothing, nothing, nothing)] == [(0, 8)] * 2


def test_twice_the_same_is_bitwise_the_same() -> None:
    gate, up, grad = (torch.randn(37, device=DEVICE) for _ in range(3))
    first, second = (backward(gate, up, grad, block=16) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_both_ways_are_built_ahead_of_time() -> None:
    names = {build.name for build in builds(90)}
    assert names == {
        f"gated.{way}[{t}]" for way in ("forward", "backward") for t in ("bf16", "fp32")
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4096, 2048), (1001, 344), (333, 7)])
def test_real_sizes(shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate, up = (torch.randn(shape, device="cuda", dtype=dtype).requires_grad_() for _ in range(2))
    found, expected = gated(gate, up), F.silu(gate.double()) * up.double()
    kind = "fp32" if dtype is torch.float32 else "bf16"
    assert_close(found, expected, kind)
    grads = (torch.autograd.grad(x.double().sum(), (gate, up)) for x in (found, expected))
    for grad, right in zip(*grads, strict=True):
        assert_close(grad, right, kind)
