"""Few passes in inference, PyTorch's own in training, also where no gradient is asked for."""

import pytest
import torch
from torch import nn

from trimodal.models.norm import EPS, RMSNorm
from trimodal.testing import assert_close


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float64, "fp64"), (torch.float32, "fp32"), (torch.bfloat16, "exact")],
)
def test_it_is_pytorchs(dtype: torch.dtype, kind: str) -> None:
    norm, theirs = RMSNorm(12).to(dtype), nn.RMSNorm(12, eps=EPS).to(dtype)
    weight = torch.rand(12).to(dtype)
    for module in (norm, theirs):
        nn.init.ones_(module.weight).data.mul_(weight)
    x = (torch.randn(3, 5, 12) * 10).to(dtype)
    x[0, 0] = 0
    expected = theirs(x).detach()
    assert_close(norm(x).detach(), expected, "exact")
    with torch.no_grad():
        assert_close(norm(x), expected, "exact")
    with torch.inference_mode():
        assert_close(norm(x), expected, kind)


def test_what_is_not_finite_stays_so() -> None:
    x = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [3.0, 4.0]])
    with torch.inference_mode():
        made = RMSNorm(2)(x)
    assert made.isfinite().all(1).tolist() == [False, False, True]
