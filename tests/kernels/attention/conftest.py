"""Segment tables of every kind, and inputs for them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from trimodal_kernels import Kind, Segments
from trimodal_kernels.attention import Extras
from trimodal_kernels.tiles import Tiles, plan_tiles

FULL, CAUSAL = Kind.FULL, Kind.CAUSAL
TILE = 16


def end_to_end(lengths: list[int], kind: Kind) -> list[tuple[int, ...]]:
    ends = np.cumsum(lengths).tolist()
    return [(end - n, end, end - n, end, kind) for end, n in zip(ends, lengths, strict=True)]


# with tiles of 16: several segments in one, a tile and one more or less, longer ones, and mixtures
TABLES: dict[str, list[tuple[int, ...]]] = {
    "one": end_to_end([1], FULL),
    "short": end_to_end([1, 1, 3, 5, 2, 9], FULL),
    "equal": end_to_end([14, 14, 14], FULL),
    "tiles": end_to_end([15, 16, 17], FULL),
    "long": end_to_end([40, 3, 33], FULL),
    "causal": end_to_end([1, 5, 17, 34, 2], CAUSAL),
    "prefix": [(0, 20, 0, 20, FULL), (20, 39, 0, 39, CAUSAL), (39, 42, 39, 42, FULL)],
    "shared-prefix": [
        (0, 18, 0, 18, FULL),
        (18, 21, 0, 18, FULL),
        (18, 21, 18, 21, CAUSAL),
        (21, 41, 0, 18, FULL),
        (21, 41, 21, 41, CAUSAL),
    ],
    "disjoint-keys": [
        (0, 2, 0, 2, FULL),
        (0, 2, 6, 9, FULL),
        (2, 9, 2, 4, FULL),
        (2, 9, 7, 9, FULL),
    ],
    "unseen-keys": [(0, 3, 4, 7, FULL), (3, 7, 3, 4, FULL)],
    "mixed": [*end_to_end([3, 40, 12], FULL), (55, 62, 43, 62, CAUSAL), (62, 64, 62, 64, FULL)],
}


class Case(NamedTuple):
    """Inputs under a table."""

    q: Tensor
    k: Tensor
    v: Tensor
    segments: Segments
    tiles: Tiles
    extras: Extras


Make = Callable[..., Case]


@pytest.fixture
def make() -> Make:
    """A case of a table: `make("mixed", everything=True, dtype=torch.float64)`."""

    def made(
        name: str,
        *,
        turned: bool = False,
        biased: bool = False,
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
        heads: int = 2,
        width: int = 8,
    ) -> Case:
        rows = TABLES[name]
        size = max(row[1] for row in rows)
        segments = Segments.from_rows(rows, size)
        q, k, v = torch.randn(3, size, heads, width, dtype=torch.float64).to(dtype).unbind(0)
        exact = torch.promote_types(dtype, torch.float32)
        extras = Extras(dropout=dropout, seed=11)
        if turned:
            angle = torch.randn(size, width // 2, dtype=exact)
            weights = torch.rand(2, width, dtype=exact) + 0.5
            extras = extras._replace(q_weight_K=weights[0], k_weight_K=weights[1])
            extras = extras._replace(cos_Tk=angle.cos(), sin_Tk=angle.sin())
        if biased:
            position = torch.arange(size, dtype=torch.int32) * 2
            extras = extras._replace(
                bias_HB=torch.randn(heads, 7, dtype=exact), position_T=position
            )
        return Case(q, k, v, segments, plan_tiles(segments.groups, size, tile=TILE), extras)

    return made


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> str:
    """The name of each table."""
    return request.param
