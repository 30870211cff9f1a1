import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from trimodal.objectives.losses import (
    gaussian_nll,
    masked_ids,
    masked_values,
)
from trimodal.testing import assert_close


def test_masked_losses_sum_over_positions() -> None:
    logits, target = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    assert_close(masked_ids(logits, target), F.cross_entropy(logits, target) * 4, "fp32")
    values = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert_close(masked_values(values, torch.zeros(2, 2)), 2.5, "exact")


def test_smoothing_spreads_probability_over_all_ids() -> None:
    logits, target = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 5, 2, 2])
    log_p = logits.log_softmax(1)
    expected = -0.9 * log_p[torch.arange(4), target].sum() - 0.1 * log_p.mean(1).sum()
    assert_close(masked_ids(logits, target, 0.1), expected, "fp64")


def test_a_position_of_several_ids_counts_as_one() -> None:
    logits, target = torch.randn(3, 4, 6, dtype=torch.float64), torch.randint(6, (3, 4))
    one_by_one = [masked_ids(logits[:, c], target[:, c]) for c in range(4)]
    assert_close(masked_ids(logits, target), torch.stack(one_by_one).mean(), "fp64")


def test_the_likelihood_of_a_length_by_hand() -> None:
    answer = torch.tensor([[2.0, 0.5], [1.0, -1.0]], dtype=torch.float64)
    target = torch.tensor([2.5, 1.0], dtype=torch.float64)
    likelihood = torch.distributions.Normal(answer[:, 0], answer[:, 1].exp())
    constant = 0.5 * math.log(2 * math.pi)
    expected = -(likelihood.log_prob(target) + constant).sum()
    assert_close(gaussian_nll(answer, target), expected, "fp64")


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_of_ids_in_double_precision(shape: tuple[int, ...], smoothing: float) -> None:
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = torch.randint(5, shape[:-1])
    assert torch.autograd.gradcheck(lambda x: masked_ids(x, target, smoothing), (logits,))


def test_gradients_of_lengths_in_double_precision() -> None:
    answer = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: gaussian_nll(x, target), (answer,))


def test_gradients_of_values_in_double_precision() -> None:
    value = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randn(4, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: masked_values(x, target), (value,))


def test_a_nearer_value_lowers_the_loss() -> None:
    value = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    target, losses = torch.randn(4, 6, dtype=torch.float64), []
    for _ in range(20):
        loss = masked_values(value, target)
        (grad,) = torch.autograd.grad(loss, value)
        losses.append(float(loss.detach()))
        assert torch.equal(grad.sign(), (value - target).sign())
        value = (value - grad).detach().requires_grad_()
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-1] < 1e-5 * losses[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_higher_logit_of_the_right_id_lowers_the_loss(smoothing: float) -> None:
    logits, target = torch.zeros(2, 5, requires_grad=True), torch.tensor([1, 3])
    masked_ids(logits, target, smoothing).backward()
    assert logits.grad is not None
    right = F.one_hot(target, 5).bool()
    assert (logits.grad[right] < 0).all()
    assert (logits.grad[~right] > 0).all()


def test_a_nearer_mean_and_a_fitting_deviation_lower_the_loss() -> None:
    target = torch.tensor([2.0])
    near, far = (gaussian_nll(torch.tensor([[mean, 0.0]]), target) for mean in (1.9, 1.0))
    assert near < far
    losses = [float(gaussian_nll(torch.tensor([[1.0, math.log(s)]]), target)) for s in (0.3, 1, 3)]
    assert min(losses) == losses[1], "an error of 1 is likeliest at a deviation of 1"
