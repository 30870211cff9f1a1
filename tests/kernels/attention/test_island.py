"""Islands: the whole backward pass in one program each, and nothing else."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention import backward as launches
from trimodal_kernels.attention.forward import forward
from trimodal_kernels.tiles import plan_tiles

Make = Callable[..., Any]


def _gradients(case: Any, grad: torch.Tensor) -> list[torch.Tensor]:
    out, lse = forward(*case[:3], case.tiles, case.extras)
    made = launches.backward(grad, *case[:3], out, lse, case.tiles, case.extras)
    return [x for x in made if x is not None]


def test_short_segments_need_no_other_program(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make("short", turned=True)
    assert case.tiles.num_long == 0
    grad = torch.randn_like(case.v)
    before = _gradients(case, grad)
    for name in ("attention_backward_queries", "attention_backward_keys"):
        monkeypatch.delattr(launches, name)
    for ours, theirs in zip(_gradients(case, grad), before, strict=True):
        assert_close(ours, theirs, "exact")


def test_an_island_gives_what_longer_programs_give(make: Make) -> None:
    """The same table with and without islands."""
    case = make("tiles", turned=True, biased=True, dtype=torch.float64)
    grad = torch.randn_like(case.v)
    size = len(case.q)
    # keys that are counted as others make no islands
    tiles = plan_tiles(case.segments.groups, size, num_keys=size, tile=case.tiles.tile)
    alone = case._replace(tiles=tiles)
    assert (len(tiles.island_N2), len(case.tiles.island_N2)) == (0, 2)
    for ours, theirs in zip(_gradients(case, grad), _gradients(alone, grad), strict=True):
        assert_close(ours, theirs, "fixed-point")
