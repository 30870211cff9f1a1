"""One dense block against softmax attention by autograd."""

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention.products import Part, attend, grade, multiplies


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_block_and_its_gradient(ragged: bool, masked: bool) -> None:
    q = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    k, v = torch.randn(2, 2, 3, 7, 8, dtype=torch.float64).unbind(0)
    k, v = k.requires_grad_(), v.requires_grad_()
    mask = (torch.rand(2, 1, 5, 7) < 0.5) if masked else None
    if mask is not None:
        mask[..., 0] = True
    score = q @ k.transpose(2, 3) / 8**0.5
    score = score if mask is None else score.masked_fill(~mask, float("-inf"))
    expected = score.softmax(-1) @ v
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (q, k, v), grad)
    part = Part(q.detach(), k.detach(), v.detach(), mask, ragged)
    assert part.multiplied == ragged
    result = attend(part, True, True)
    assert result.lse_BHQ is not None
    assert_close(result.out_BHQK, expected, "fp64")
    assert_close(result.lse_BHQ, score.logsumexp(-1), "fp64")
    for ours, theirs in zip(grade(part, grad, iter(result.kept)), wanted, strict=True):
        assert_close(ours, theirs, "fp64")


def test_what_is_multiplied() -> None:
    assert multiplies(torch.float32, 128, ragged=True)
    assert not multiplies(torch.float32, 129, ragged=True)
    assert not multiplies(torch.float32, 17, ragged=False)
    assert multiplies(torch.bfloat16, 768, ragged=False)
    assert not multiplies(torch.bfloat16, 769, ragged=True)
