"""Components longer than a tile: over queries and over keys."""
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.testing import assert_close
from trimodal_kernels.attention import backward as launches
from trimodal_kernels.attention.forward import forward

Make = Callable[..., Any]


@pytest.mark.parametrize("blocks", [{32: (8, 4)}, {32: (64, 4)}])
def test_the_size_of_blocks_does_not_matter(
    make: Make, blocks: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make("shared-prefix", turned=True, dtype=torch.float64)
    assert len(case.tiles.island_N2) == 0
    out, lse = forward(*case[:3], case.tiles, case.extras)
    grad = torch.randn_like(out)
    before = launches.backward(grad, *case[:3], out, lse, case.tiles, case.extras)
    monkeypatch.setattr(launches, "QUERIES", blocks)
    monkeypatch.setattr(launches, "KEYS", {90: {32: (blocks[32][0], 8, 4)}})
    after = launches.backward(grad, *case[:3], out, lse, case.tiles, case.extras)
    for ours, theirs in zip(after[:5], before[:5], strict=True):
        assert_close(ours, theirs, "fp64")


def test_a_key_that_no_query_sees_has_no_gradient(make: Make) -> None:
    case = make("unseen-keys")
    out, lse = forward(*case[:3], case.tiles, case.extras)
    made = launches.backward(torch.randn_like(out), *case[:3], out, lse, case.tiles, case.extras)
    assert not made.k_THK[:3].any()
    assert made.k_THK[3:].any()
