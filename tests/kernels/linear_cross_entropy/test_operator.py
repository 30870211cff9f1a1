from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trimodal_kernels import linear_cross_entropy
from trimodal_kernels.dispatch import VARIABLE
from trimodal_kernels.linear_cross_entropy import operator

Make = Callable[..., tuple[Tensor, Tensor, Tensor]]


@pytest.mark.parametrize("path", ["auto", "triton"])
@pytest.mark.parametrize("grades", [(True, True), (False, False), (True, False)])
def test_it_is_registered_as_torch_wants(
    problem: Make, monkeypatch: pytest.MonkeyPatch, path: str, grades: tuple[bool, bool]
) -> None:
    monkeypatch.setenv(VARIABLE, path)
    made = problem(4, 18, 8, torch.float32)
    torch.library.opcheck(operator, (*made, 0.125, 0.25, True, *grades))


def test_no_gradient_is_taken_where_none_is_wanted(
    problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither without gradients nor in inference mode, and none of a fixed weight."""
    wanted: list[tuple[bool, bool]] = []

    def recorded(*args: object) -> tuple[Tensor, ...]:
        wanted.append(args[-2:])  # pyright: ignore[reportArgumentType]
        return operator(*args)

    monkeypatch.setitem(linear_cross_entropy.__globals__, "operator", recorded)
    h_KD, weight_VD, target_K = problem(4, 18, 8)
    with torch.no_grad():
        linear_cross_entropy(h_KD, weight_VD, target_K)
    with torch.inference_mode():
        linear_cross_entropy(h_KD, weight_VD, target_K)
    linear_cross_entropy(h_KD, weight_VD.detach(), target_K).backward()
    linear_cross_entropy(h_KD, weight_VD, target_K).backward()
    assert wanted == [(False, False), (False, False), (True, False), (True, True)]


def test_there_is_no_second_derivative(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(4, 18, 8)
    loss = linear_cross_entropy(h_KD, weight_VD, target_K) ** 2
    (grad,) = torch.autograd.grad(loss, h_KD, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_backward_can_be_repeated(problem: Make) -> None:
    h_KD, weight_VD, target_K = problem(4, 18, 8)
    loss = linear_cross_entropy(h_KD, weight_VD, target_K)
    first, second = (
        torch.autograd.grad(loss * scale, weight_VD, retain_graph=True)[0] for scale in (2, 4)
    )
    assert torch.equal(2 * first, second)
