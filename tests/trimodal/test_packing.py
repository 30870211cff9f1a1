"""First-fit packing."""

import numpy as np
import pytest

from trimodal.packing import first_fit


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
