"""First-fit packing, and equal shares."""

import numpy as np
import pytest

from trimodal.packing import balance, first_fit


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 17, 100, 10_000])
def test_every_item_is_in_one_bin_within_the_budget(seed: int, budget: int) -> None:
    costs = np.random.default_rng(seed).integers(1, 60, 200).tolist()
    bins = first_fit(costs, budget)
    assert sorted(index for indices in bins for index in indices) == list(range(200))
    for indices in bins:
        assert indices == sorted(indices)
        assert sum(costs[i] for i in indices) <= budget or len(indices) == 1


@pytest.mark.parametrize("seed", range(3))
def test_an_item_lies_in_the_first_bin_that_held_it(seed: int) -> None:
    costs = np.random.default_rng(seed).integers(1, 40, 80).tolist()
    bins = first_fit(costs, budget=64)
    home = {index: b for b, indices in enumerate(bins) for index in indices}
    for index, cost in enumerate(costs):
        for earlier in range(home[index]):
            before = sum(costs[i] for i in bins[earlier] if i < index)
            assert before + cost > 64


def test_at_most_one_bin_is_half_empty() -> None:
    costs = np.random.default_rng(0).integers(1, 50, 300).tolist()
    loads = [sum(costs[i] for i in indices) for indices in first_fit(costs, budget=100)]
    assert sum(load <= 50 for load in loads) <= 1


def test_an_item_above_the_budget_is_alone() -> None:
    assert first_fit([3, 50, 4, 3], budget=10) == [[0, 2, 3], [1]]


def test_nothing_costs_nothing() -> None:
    assert first_fit([], budget=10) == []
    assert first_fit([5, 0, 5, 0], budget=10) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("shares", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("seed", range(3))
def test_shares_are_of_one_size_and_about_one_cost(seed: int, shares: int) -> None:
    """Costs as uneven as those of media: most are small, a few are large."""
    costs = np.random.default_rng(seed).lognormal(4, 1, 96).tolist()
    found = balance(costs, shares)
    assert sorted(index for share in found for index in share) == list(range(96))
    assert {len(share) for share in found} == {96 // shares}
    assert all(share == sorted(share) for share in found)
    sums = [sum(costs[i] for i in share) for share in found]
    contiguous = np.array(costs).reshape(shares, -1).sum(1)
    # no share can cost less than the dearest item that one of them has to have
    assert max(sums) <= max(1.05 * sum(costs) / shares, max(costs))
    assert max(sums) <= contiguous.max() + 1e-9


def test_shares_depend_on_the_costs_alone() -> None:
    assert balance([5, 5, 5, 5], 2) == balance([5, 5, 5, 5], 2) == [[0, 2], [1, 3]]
    assert balance([9, 1, 1, 9], 2) == [[0, 1], [2, 3]]
