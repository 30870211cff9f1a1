import pytest
import torch
import torch.nn.functional as F

from trimodal.testing import assert_close
from trimodal_kernels.linear_cross_entropy.cpu import rows_at_once, softmax_


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("outputs", [1, 37])
def test_logits_become_their_gradient(outputs: int, smoothing: float, scale: float) -> None:
    logits = (torch.randn(5, outputs, dtype=torch.float64) * scale).requires_grad_()
    target, loss = torch.randint(outputs, (5,)), torch.empty(5, dtype=torch.float64)
    expected = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    expected = expected + 0.5 * logits.logsumexp(1).square()
    (right,) = torch.autograd.grad(expected.sum(), logits)
    room = logits.detach().clone()
    softmax_(room, target, loss, smoothing, 0.5, True)
    assert_close(loss, expected, "fp64")
    assert_close(room, right, "fp64")


def test_bfloat16_is_reduced_in_single_precision() -> None:
    logits = torch.zeros(2, 2049, dtype=torch.bfloat16)
    loss = torch.empty(2)
    softmax_(logits, torch.tensor([0, 2048]), loss, 0.0, 0.0, True)
    assert_close(loss, torch.full((2,), 2049.0).log(), "fp32")
    assert_close(logits[0, :2], [1 / 2049 - 1, 1 / 2049], "bf16")


@pytest.mark.parametrize(("outputs", "rows"), [(1, 1024), (4096, 1024), (16385, 255), (10**6, 128)])
def test_rows_at_once_fit_a_budget(outputs: int, rows: int) -> None:
    assert rows_at_once(outputs) == rows
