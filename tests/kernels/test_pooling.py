"""Means of packed segments."""

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels import segment_mean


@pytest.mark.parametrize("lengths", [[4], [1, 1], [3, 63, 1, 17], [2, 0, 3], [0, 0, 1]])
def test_mean_of_each_segment(lengths: list[int]) -> None:
    x_TD = torch.randn(sum(lengths), 5)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    expected = [part.mean(0) if len(part) else torch.zeros(5) for part in x_TD.split(lengths)]
    assert_close(segment_mean(x_TD, cu_seqlens), torch.stack(expected), "fp32")


def test_gradient_is_the_derivative() -> None:
    x_TD = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    cu_seqlens = torch.tensor([0, 1, 5, 7])
    assert torch.autograd.gradcheck(lambda x: segment_mean(x, cu_seqlens), (x_TD,))


def test_empty_segments_take_and_give_no_gradient() -> None:
    x_TD = torch.randn(3, 2, requires_grad=True)
    segment_mean(x_TD, torch.tensor([0, 0, 3, 3])).sum().backward()
    assert x_TD.grad is not None
    assert_close(x_TD.grad, torch.full((3, 2), 1 / 3), "fp32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(dtype: torch.dtype) -> None:
    x_TD = torch.full((4096, 1), 1.001, dtype=dtype)
    mean = segment_mean(x_TD, torch.tensor([0, 4096]))
    assert mean.dtype is torch.float32
    assert_close(mean, x_TD[:1].float(), "fp32")


def test_inputs_need_not_be_contiguous() -> None:
    x_TD = torch.randn(3, 8).T
    assert not x_TD.is_contiguous()
    cu_seqlens = torch.tensor([0, 2, 8])
    assert_close(
        segment_mean(x_TD, cu_seqlens), segment_mean(x_TD.contiguous(), cu_seqlens), "exact"
    )
