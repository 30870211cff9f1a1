import math

import pytest
import torch
import torch.nn.functional as F

from trimodal.objectives.losses import (
    gaussian_nll,
    info_nce,
    masked_ids,
    masked_values,
    sigmoid_contrast,
)
from trimodal.testing import assert_close

EVERY = torch.ones(3, dtype=torch.bool)


def units(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 8, dtype=torch.float64, generator=generator), dim=1)


def test_info_nce_of_one_positive_is_cross_entropy() -> None:
    a, b, scale = units(3), units(3, 1), torch.tensor(7.0)
    expected = F.cross_entropy(scale * a @ b.T, torch.arange(3), reduction="none")
    assert_close(info_nce(a, b, torch.eye(3).bool(), EVERY, scale), expected, "fp64")


def test_info_nce_of_equal_vectors_is_log_of_their_number() -> None:
    a = units(1).expand(3, 8)
    loss = info_nce(a, a, torch.eye(3).bool(), EVERY, torch.tensor(10.0, dtype=torch.float64))
    assert_close(loss, torch.full((3,), math.log(3), dtype=torch.float64), "fp64")


def test_several_positives_are_averaged() -> None:
    a, b, scale = units(2), units(3, 1), torch.tensor(3.0)
    positive = torch.tensor([[True, True, False], [False, False, True]])
    log_p = (scale * a @ b.T).log_softmax(1)
    expected = [-(log_p[0, 0] + log_p[0, 1]) / 2, -log_p[1, 2]]
    assert_close(info_nce(a, b, positive, EVERY, scale), torch.stack(expected), "fp64")


def test_columns_that_take_no_part_change_nothing() -> None:
    a, b, scale = units(3), units(4, 1), torch.tensor(5.0)
    column = torch.tensor([True, True, True, False])
    positive = torch.eye(3, 4).bool()
    with_absent = info_nce(a, b, positive, column, scale)
    assert_close(with_absent, info_nce(a, b[:3], positive[:, :3], EVERY, scale), "fp64")


def test_a_row_without_a_positive_has_loss_and_gradient_0() -> None:
    a = units(2).requires_grad_()
    positive = torch.tensor([[True, False, False], [False, False, False]])
    loss = info_nce(a, units(3, 1), positive, EVERY, torch.tensor(5.0))
    assert loss[1] == 0
    loss.sum().backward()
    assert a.grad is not None
    assert not a.grad[1].any()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_descent_pulls_positives_together_and_pushes_others_apart(name: str) -> None:
    a, b = units(3).requires_grad_(), units(3, 1)
    arguments = (a, b, torch.eye(3).bool(), EVERY, torch.tensor(5.0, dtype=torch.float64))
    bias = torch.tensor(-1.0, dtype=torch.float64)
    loss = info_nce(*arguments) if name == "infonce" else sigmoid_contrast(*arguments, bias)
    loss.sum().backward()
    assert a.grad is not None
    change = -(a.grad @ b.T)
    assert (change.diagonal() > 0).all()
    assert (change.diagonal() > change.masked_fill(torch.eye(3).bool(), -9).amax(1)).all()


def test_sigmoid_by_hand() -> None:
    a, b = units(1), units(2, 1)
    scale, bias = torch.tensor(4.0), torch.tensor(-2.0)
    x = scale * a @ b.T + bias
    expected = -(F.logsigmoid(x[:, 0]) + F.logsigmoid(-x[:, 1]))
    positive, column = torch.tensor([[True, False]]), torch.ones(2, dtype=torch.bool)
    assert_close(sigmoid_contrast(a, b, positive, column, scale, bias), expected, "fp64")


def test_gradients_in_double_precision() -> None:
    a, b = units(3).requires_grad_(), units(4, 1).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]).bool()
    column = torch.tensor([1, 1, 1, 0]).bool()
    assert torch.autograd.gradcheck(
        lambda *x: info_nce(x[0], x[1], positive, column, x[2]), (a, b, scale)
    )
    assert torch.autograd.gradcheck(
        lambda *x: sigmoid_contrast(x[0], x[1], positive, column, x[2], x[3]), (a, b, scale, bias)
    )


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
