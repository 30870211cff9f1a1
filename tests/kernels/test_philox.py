"""Philox: the published numbers, and even draws."""

import torch

from trimodal_kernels.philox import uniform


def test_draws_are_even_and_apart() -> None:
    rows, columns = torch.arange(300)[:, None], torch.arange(400)[None, :]
    first, second = (uniform(7, rows, columns, torch.tensor(head)) for head in (0, 1))
    for drawn in (first, second):
        assert 0 <= drawn.min() < 1e-3
        assert 0.999 < drawn.max() < 1
        assert abs(drawn.mean() - 0.5) < 5e-3
        assert abs(drawn.var() - 1 / 12) < 2e-3
    stacked = torch.stack([first.flatten(), second.flatten(), first.T.flatten()])
    assert (torch.corrcoef(stacked) - torch.eye(3)).abs().max() < 0.02


def test_a_draw_depends_on_its_place_alone() -> None:
    whole = uniform(3, torch.arange(20)[:, None], torch.arange(30), torch.tensor(2))
    part = uniform(3, torch.arange(5, 9)[:, None], torch.arange(11, 30), torch.tensor(2))
    assert torch.equal(whole[5:9, 11:], part)
    assert not torch.equal(
        whole, uniform(4, torch.arange(20)[:, None], torch.arange(30), torch.tensor(2))
    )


def test_seeds_of_64_bits() -> None:
    counters = torch.arange(50), torch.tensor(0), torch.tensor(0)
    assert not torch.equal(uniform(1, *counters), uniform(1 + (1 << 32), *counters))
