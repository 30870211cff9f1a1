from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trimodal.testing import assert_close
from trimodal_kernels.linear_cross_entropy.chunked import chunked
from trimodal_kernels.linear_cross_entropy.cpu import softmax_
from trimodal_kernels.linear_cross_entropy.reference import reference_linear_cross_entropy

Make = Callable[..., tuple[Tensor, Tensor, Tensor]]


def run(
    problem: tuple[Tensor, Tensor, Tensor],
    rows: int,
    *,
    sum_in_fp32: bool = True,
    grades: tuple[bool, bool] = (True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        return chunked(softmax_, rows, *problem, 0.125, 0.25, sum_in_fp32, *grades)


@pytest.mark.parametrize("rows", [1, 3, 10, 11])
@pytest.mark.usefixtures("poisoned")
def test_rows_at_once_change_nothing(problem: Make, rows: int) -> None:
    h_KD, weight_VD, target_K = made = problem(10, 23, 6)
    expected = reference_linear_cross_entropy(h_KD, weight_VD, target_K, 0.125, 0.25)
    loss, *grads = run(made, rows)
    assert_close(loss, expected, "fp64")
    right = torch.autograd.grad(expected, (h_KD, weight_VD))
    for grad, one in zip(grads, right, strict=True):
        assert_close(grad, one, "fp64")


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() for x in tree_leaves(made) if isinstance(x, Tensor)]
        self.numbers = max([self.numbers, *(size // 8 for size in sizes)])
        return made


def test_no_tensor_has_all_logits(problem: Make) -> None:
    made = problem(64, 48, 4)
    with Largest() as largest:
        run(made, rows=4)
    assert largest.numbers == 64 * 4, "that of the rows themselves"


@pytest.mark.parametrize("grades", [(False, False), (True, False), (False, True)])
def test_what_is_not_wanted_is_not_computed(problem: Make, grades: tuple[bool, bool]) -> None:
    made = problem(10, 23, 6)
    loss, *grads = run(made, 4, grades=grades)
    full = run(made, 4)
    assert_close(loss, full[0], "exact")
    for grad, wanted, all_of_it in zip(grads, grades, full[1:], strict=True):
        assert_close(grad, all_of_it[: len(all_of_it) if wanted else 0], "exact")


def test_the_gradient_of_a_16_bit_weight_is_rounded_once(problem: Make) -> None:
    """Summed in bfloat16 instead, what many chunks add is lost."""
    made = problem(256, 8, 4, torch.bfloat16)
    h_KD, weight_VD = (x.detach().double().requires_grad_() for x in made[:2])
    expected = reference_linear_cross_entropy(h_KD, weight_VD, made[2], 0.125, 0.25)
    (right,) = torch.autograd.grad(expected, weight_VD)
    once, often = (
        float((run(made, 2, sum_in_fp32=exact)[2].double() - right).norm() / right.norm())
        for exact in (True, False)
    )
    assert once < 0.5 * often


def test_a_weight_of_higher_precision_keeps_it(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(6, 9, 4, torch.float32)
    _, grad_h_KD, grad_VD = run((h_KD.bfloat16(), weight_VD, target_K), 4)
    assert (grad_h_KD.dtype, grad_VD.dtype) == (torch.bfloat16, torch.float32)
