"""Tiles and islands: every pair of query and key that the table has, once, and no more programs."""

import numpy as np
import pytest
import torch

from trimodal_kernels import Kind, Segments
from trimodal_kernels.tiles import Tiles, plan_tiles

FULL, CAUSAL = Kind.FULL, Kind.CAUSAL
TILE = 8


def _random_rows(seed: int) -> list[tuple[int, ...]]:
    """Segments of full, causal and prefix kinds, and targets that share a prefix."""
    draws = np.random.default_rng(seed)
    rows: list[tuple[int, ...]] = []
    at = 0
    for _ in range(8):
        size, kind = int(draws.integers(1, 25)), int(draws.integers(0, 3))
        if kind < 2:
            rows.append((at, at + size, at, at + size, kind))
        else:
            rows.append((at, at + size, at, at + size, FULL))
            for _ in range(2):
                more, start = int(draws.integers(1, 12)), at + size
                first = rows[-1][0] if rows[-1][4] == FULL else rows[-2][2]
                rows += [(start, start + more, first, first + 1, FULL)]
                rows += [(start, start + more, start, start + more, CAUSAL)]
                size += more
        at += size
    return rows


def _tiles(rows: list[tuple[int, ...]], num_keys: int | None = None) -> Tiles:
    segments = Segments.from_rows(rows, rows[-1][1], num_keys)
    return plan_tiles(segments.groups, rows[-1][1], num_keys, tile=TILE)


def _seen(rows: list[tuple[int, ...]], num_keys: int) -> torch.Tensor:
    seen_TL = torch.zeros(rows[-1][1], num_keys, dtype=torch.bool)
    for q0, q1, k0, k1, kind in rows:
        allowed = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        seen_TL[q0:q1, k0:k1] |= allowed.tril(k1 - k0 - (q1 - q0)) if kind else allowed
    return seen_TL


@pytest.mark.parametrize("seed", range(6))
def test_intervals_are_the_table(seed: int) -> None:
    rows = _random_rows(seed)
    tiles, size = _tiles(rows), rows[-1][1]
    key = torch.arange(size)
    inside = (key >= tiles.low_RT[:, :, None]) & (key < tiles.high_RT[:, :, None])
    assert torch.equal(inside.any(0), _seen(rows, size))
    assert inside.sum(0).max() == 1


@pytest.mark.parametrize("seed", range(6))
def test_query_tiles_hold_every_query_once_and_all_its_keys(seed: int) -> None:
    rows = _random_rows(seed)
    tiles = _tiles(rows)
    queries: list[int] = []
    for first, last, *spans in tiles.query_NC.tolist():
        assert 0 < last - first <= TILE
        queries += range(first, last)
        for r in range(len(tiles.low_RT)):
            low, high = tiles.low_RT[r, first:last], tiles.high_RT[r, first:last]
            real = high > low
            if real.any():
                assert spans[2 * r] == low[real].min()
                assert spans[2 * r + 1] == high[real].max()
    assert sorted(queries) == list(range(rows[-1][1]))


@pytest.mark.parametrize("seed", range(6))
def test_backward_programs_hold_every_pair(seed: int) -> None:
    rows = _random_rows(seed)
    tiles, size = _tiles(rows), rows[-1][1]
    held = torch.zeros(size, size, dtype=torch.int64)
    written = torch.zeros(size, dtype=torch.int64)
    for first, last in tiles.island_N2.tolist():
        assert last - first <= TILE
        held[first:last, first:last] += 1
        written[first:last] += 1
    for first, last, a, b in tiles.key_N4.tolist():
        written[first:last] += 1
        for q0, q1 in tiles.span_N2[a:b].tolist():
            held[q0:q1, first:last] += 1
    seen = _seen(rows, size)
    assert (written == 1).all()
    assert (held[seen] == 1).all()
    assert held.max() == 1
    long = [q for t in tiles.query_NC[: tiles.num_long].tolist() for q in range(t[0], t[1])]
    islands = [q for a, b in tiles.island_N2.tolist() for q in range(a, b)]
    assert sorted(long + islands) == list(range(size))


def test_islands_can_be_dissolved() -> None:
    tiles = _tiles(_random_rows(1))
    assert len(tiles.island_N2) > 0
    loose = tiles.without_islands()
    assert (len(loose.island_N2), loose.num_long) == (0, len(tiles.query_NC))
    assert len(loose.key_N4) == len(tiles.key_N4) + len(tiles.island_N2)
    for first, last, a, b in loose.key_N4[len(tiles.key_N4) :].tolist():
        assert loose.span_N2[a:b].tolist() == [[first, last]]


def test_short_segments_share_a_tile_and_an_island() -> None:
    rows = [(i, i + 2, i, i + 2, FULL) for i in range(0, 16, 2)]
    tiles = _tiles(rows)
    assert tiles.query_NC[:, :2].tolist() == [[0, 8], [8, 16]]
    assert tiles.island_N2.tolist() == [[0, 8], [8, 16]]
    assert (tiles.num_long, len(tiles.key_N4)) == (0, 0)


def test_a_causal_tile_reads_no_later_keys() -> None:
    tiles = _tiles([(0, 24, 0, 24, CAUSAL)])
    assert tiles.query_NC.tolist() == [[16, 24, 0, 24], [8, 16, 0, 16], [0, 8, 0, 8]]
    assert sorted(tiles.span_N2.tolist()) == [[0, 24], [8, 24], [16, 24]]


def test_keys_of_other_tokens_make_no_islands() -> None:
    tiles = _tiles([(0, 2, 3, 6, FULL)], num_keys=20)
    assert len(tiles.island_N2) == 0
    assert tiles.num_long == 1
    covered = [key for first, last, *_ in tiles.key_N4.tolist() for key in range(first, last)]
    assert sorted(covered) == list(range(20))


def test_packing_loses_nothing() -> None:
    tiles = _tiles(_random_rows(0))
    again = Tiles.unpacked(*tiles.packed())
    assert (again.num_long, again.tile) == (tiles.num_long, TILE)
    assert all(torch.equal(a, b) for a, b in zip(again[:6], tiles[:6], strict=True))
