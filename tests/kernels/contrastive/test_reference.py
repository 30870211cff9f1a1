from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trimodal.testing import assert_close
from trimodal_kernels.contrastive.pairs import Pairs
from trimodal_kernels.contrastive.reference import backward, forward, losses


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_one_pair_at_a_time(problem: Callable[..., Pairs], masked: bool, sigmoid: bool) -> None:
    pairs = problem(5, 7, both=True, masked=masked, sigmoid=sigmoid)
    for side, loss in zip((pairs, pairs.turned()), losses(pairs), strict=True):
        column_M = torch.ones(len(side.b_ME)) if side.column_M is None else side.column_M
        for i in range(len(side.a_NE)):
            logits = [float(side.scale * side.a_NE[i] @ b) for b in side.b_ME]
            taken = [j for j in range(len(logits)) if column_M[j]]
            x = torch.tensor([logits[j] for j in taken], dtype=torch.float64)
            positive = torch.tensor([bool(side.id_N[i] == side.id_M[j]) for j in taken])
            if side.bias is None:
                p = x.exp() / x.exp().sum()
                expected = -p[positive].log().mean() if positive.any() else torch.zeros(())
            else:
                p = 1 / (1 + (-x - side.bias).exp())
                expected = -(p[positive].log().sum() + (1 - p[~positive]).log().sum())
            assert_close(loss[i], expected, "fp64")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_torch(
    problem: Callable[..., Pairs],
    weights: Callable[[Pairs], tuple[Tensor, Tensor]],
    masked: bool,
    sigmoid: bool,
    both: bool,
) -> None:
    pairs = problem(5, 7, both=both, masked=masked, sigmoid=sigmoid)
    grad_N, grad_M = weights(pairs)
    leaves = {
        name: x.detach().requires_grad_()
        for name in ("a_NE", "b_ME", "scale", "bias")
        if (x := getattr(pairs, name)) is not None
    }
    loss_N, loss_M, *_ = forward(pairs._replace(**leaves))
    total = (loss_N * grad_N).sum() + (loss_M * grad_M).sum()
    found = backward(pairs, grad_N, grad_M)
    expected = torch.autograd.grad(total, tuple(leaves.values()))
    for name, right in zip(leaves, expected, strict=True):
        assert_close(getattr(found, name), right, "fp64")
