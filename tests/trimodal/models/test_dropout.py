import pytest
import torch

from trimodal.models.dropout import dropout, splitmix

SEEDS = torch.tensor([1234567, 2**62 + 11, 0, 99])


def test_numbers_are_those_of_splitmix64() -> None:
    """The first numbers of seed 1234567 as published with the generator."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = splitmix(torch.tensor([1234567]), 5)[0].tolist()
    assert [number % 2**64 for number in found] == expected


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_and_the_mean_are_right(rate: float) -> None:
    seed_T = torch.arange(2000) + 17
    y_TD = dropout(torch.ones(2000, 50), rate, seed_T, 0)
    deviation = (rate * (1 - rate) / y_TD.numel()) ** 0.5
    assert abs(float((y_TD == 0).double().mean()) - rate) < 5 * deviation
    assert abs(float(y_TD.double().mean()) - 1) < 5 * deviation / (1 - rate)
    # neither rows nor columns have shares of their own
    for dim in (0, 1):
        shares = (y_TD == 0).double().mean(dim)
        spread = (rate * (1 - rate) / y_TD.shape[dim]) ** 0.5
        assert 0.8 * spread < float(shares.std()) < 1.25 * spread


def test_draws_belong_to_the_token() -> None:
    x_TD = torch.randn(4, 10)
    order = torch.tensor([2, 0, 3, 1])
    packed = dropout(x_TD, 0.5, SEEDS, 1)
    assert torch.equal(dropout(x_TD[order], 0.5, SEEDS[order], 1), packed[order])
    torch.manual_seed(5)
    assert torch.equal(dropout(x_TD, 0.5, SEEDS, 1), packed)


def test_tokens_layers_and_columns_are_independent() -> None:
    ones = torch.ones(64, 400)
    seed_T = torch.arange(64)
    drawn = torch.cat([dropout(ones, 0.5, seed_T, place) for place in range(4)]) / 2
    agreement = torch.corrcoef(drawn.double())
    agreement.fill_diagonal_(0)
    assert float(agreement.abs().max()) < 6 / 400**0.5
    columns = torch.corrcoef(drawn.double().T)
    columns.fill_diagonal_(0)
    assert float(columns.abs().max()) < 6 / 256**0.5


def test_the_gradient_is_dropped_alike() -> None:
    x_TD = torch.randn(4, 6, requires_grad=True)
    y_TD = dropout(x_TD, 0.25, SEEDS, 0)
    y_TD.sum().backward()
    assert x_TD.grad is not None
    assert torch.equal(x_TD.grad == 0, y_TD == 0)
    assert x_TD.grad.unique().tolist() == pytest.approx([0, 4 / 3])


def test_what_is_dropped_leaves_no_trace() -> None:
    x_TD = torch.full((1, 64), float("inf"))
    y_TD = dropout(x_TD, 0.5, torch.tensor([3]), 0)
    assert set(y_TD.unique().tolist()) == {0.0, float("inf")}


def test_without_seeds_torch_draws() -> None:
    x_TD = torch.ones(4, 100)
    first, second = (dropout(x_TD, 0.5, None, 0) for _ in range(2))
    assert not torch.equal(first, second)
