"""Where the programs of a ragged kernel work: a segment table as intervals of keys and as tiles.

tiles = plan_tiles(groups, num_tokens=T, num_keys=T)
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TILE = 64
"""Queries, or keys, of one program."""

Row = Sequence[int]
"""q_start, q_end, kv_start, kv_end, kind."""
Span = tuple[int, int]
"""First, one past the last."""


class Kind(IntEnum):
    """How the queries of a row see its keys."""

    FULL = 0
    CAUSAL = 1
    """Aligned at the bottom right: the last query sees every key."""


class Tiles(NamedTuple):
    """What programs read to find their work; int32.

    A query sees the keys of at most R intervals, one for each row of its range, so a mask is a few
    comparisons whatever the table says. Intervals that a range lacks are (0, 0).
    """

    low_RT: Tensor
    """First key of each interval of each query."""
    high_RT: Tensor
    """One past its last key."""
    query_NC: Tensor
    """Tiles of queries: first, one past the last, then for each of R the span of keys they see.
    Those outside islands come first; among them, and among the others, the longest work first."""
    key_N4: Tensor
    """Tiles of keys outside islands: first, one past the last, and which rows of `span_N2`."""
    span_N2: Tensor
    """Spans of queries that see some key of a tile."""
    island_N2: Tensor
    """Islands of at most a tile: first, one past the last. No query in an island sees a key outside
    it, and no query outside sees a key in it, so one program can hold its whole backward pass.
    Several short segments share one."""
    num_long: int
    """How many tiles of queries lie outside islands."""
    tile: int = TILE

    def without_islands(self) -> "Tiles":
        """The same work for programs that hold no island: over queries, then over keys."""
        count, spans = len(self.island_N2), len(self.span_N2)
        rows = torch.arange(spans, spans + count, dtype=torch.int32, device=self.low_RT.device)
        own_N4 = torch.cat([self.island_N2, torch.stack([rows, rows + 1], 1)], 1)
        return self._replace(
            key_N4=torch.cat([self.key_N4, own_N4]),
            span_N2=torch.cat([self.span_N2, self.island_N2]),
            island_N2=self.island_N2[:0],
            num_long=len(self.query_NC),
        )

    def packed(self) -> tuple[list[Tensor], list[int]]:
        """The same as a list of tensors and a list of numbers."""
        *tables, num_long, tile = self
        return tables, [num_long, tile]

    @classmethod
    def unpacked(cls, tables: Sequence[Tensor], sizes: Sequence[int]) -> "Tiles":
        """From what `packed` made."""
        low_RT, high_RT, query_NC, key_N4, span_N2, island_N2 = tables
        num_long, tile = sizes
        return cls(low_RT, high_RT, query_NC, key_N4, span_N2, island_N2, num_long, tile)


def plan_tiles(
    groups: Sequence[Sequence[Row]],
    num_tokens: int,
    num_keys: int | None = None,
    tile: int = TILE,
) -> Tiles:
    """Intervals, tiles and islands of a segment table.

    Args:
        groups: its rows by query range, in order, as `Segments.from_rows` has checked them.
        num_tokens: queries.
        num_keys: keys, if they are others than the queries; then there are no islands.
        tile: queries, or keys, of one program.
    """
    depth = max((len(group) for group in groups), default=1)
    low_RT, high_RT = _intervals(groups, depth, num_tokens)
    islands, outside = _islands(groups, tile) if num_keys is None else ([], list(groups))
    long = _longest_first(_query_tiles(outside, depth, tile), tile)
    inside = [t for found in islands for t in _query_tiles(found, depth, tile)]
    short = _longest_first(inside, tile)
    tokens = [(group[0][0], group[0][1]) for group in outside]
    keys, spans = _key_tiles(outside, tokens if num_keys is None else [(0, num_keys)], tile)
    return Tiles(
        low_RT=torch.from_numpy(low_RT),
        high_RT=torch.from_numpy(high_RT),
        query_NC=_table([*long, *short], 2 + 2 * depth),
        key_N4=_table(keys, 4),
        span_N2=_table(spans, 2),
        island_N2=_table([(found[0][0][0], found[-1][0][1]) for found in islands], 2),
        num_long=len(long),
        tile=tile,
    )


def _intervals(
    groups: Sequence[Sequence[Row]], depth: int, num_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    low_RT, high_RT = np.zeros((2, depth, num_tokens), dtype=np.int32)
    for group in groups:
        for r, (q_start, q_end, kv_start, kv_end, kind) in enumerate(group):
            low_RT[r, q_start:q_end] = kv_start
            if kind == Kind.CAUSAL:
                hidden = np.arange(q_end - q_start - 1, -1, -1)
                high_RT[r, q_start:q_end] = np.maximum(kv_end - hidden, kv_start)
            else:
                high_RT[r, q_start:q_end] = kv_end
    return low_RT, high_RT


Groups = list[Sequence[Row]]


def _islands(groups: Sequence[Sequence[Row]], tile: int) -> tuple[list[Groups], Groups]:
    """Consecutive ranges that see only themselves and fit a tile, and the rest.

    Components that are shorter are put together while they fit.
    """
    islands: list[Groups] = []
    outside: Groups = []
    for component in _components(groups):
        size = _size(component)
        before = islands[-1] if islands else None
        if size > tile:
            outside += component
        elif before and _follows(component, before) and _size(before) + size <= tile:
            before += component
        else:
            islands.append(component)
    return islands, outside


def _follows(groups: Groups, before: Groups) -> bool:
    return before[-1][0][1] == groups[0][0][0]


def _size(groups: Groups) -> int:
    return groups[-1][0][1] - groups[0][0][0]


def _components(groups: Sequence[Sequence[Row]]) -> Iterator[Groups]:
    """The finest division into consecutive ranges such that no query sees a key across it."""
    # the smallest token that any later range reaches back to
    reach = np.full(len(groups) + 1, np.iinfo(np.int64).max)
    for i in range(len(groups) - 1, -1, -1):
        reach[i] = min(reach[i + 1], groups[i][0][0], *(row[2] for row in groups[i]))
    component: Groups = []
    ahead = 0
    for i, group in enumerate(groups):
        component.append(group)
        ahead = max(ahead, group[0][1], *(row[3] for row in group))
        if ahead <= group[0][1] <= reach[i + 1]:
            yield component
            component = []


def _query_tiles(groups: Sequence[Sequence[Row]], depth: int, tile: int) -> list[list[int]]:
    """Tiles of queries; short ranges share one where that makes no program read more keys."""
    tiles: list[list[int]] = []
    for group in groups:
        q_start, q_end = group[0][:2]
        for first in range(q_start, q_end, tile):
            last = min(first + tile, q_end)
            new = [first, last, *_spans(group, last, depth)]
            before = tiles[-1] if tiles else None
            if before and before[1] == first and last - before[0] <= tile:
                both = [before[0], last, *_union(before[2:], new[2:])]
                if _cost(both, tile) <= _cost(before, tile) + _cost(new, tile):
                    tiles[-1] = both
                    continue
            tiles.append(new)
    return tiles


def _spans(group: Sequence[Row], last: int, depth: int) -> Iterator[int]:
    """Of each row the keys that queries before `last` see."""
    for _, q_end, kv_start, kv_end, kind in group:
        yield kv_start
        yield max(kv_start, kv_end - (q_end - last)) if kind == Kind.CAUSAL else kv_end
    yield from (0,) * (2 * (depth - len(group)))


def _union(a: Sequence[int], b: Sequence[int]) -> Iterator[int]:
    for i in range(0, len(a), 2):
        spans = [s for s in (a[i : i + 2], b[i : i + 2]) if s[1] > s[0]] or [(0, 0)]
        yield min(s[0] for s in spans)
        yield max(s[1] for s in spans)


def _cost(found: Sequence[int], tile: int) -> int:
    """Blocks of keys that its program reads."""
    return sum(-(-(found[i + 1] - found[i]) // tile) for i in range(2, len(found), 2))


def _longest_first(tiles: Iterable[list[int]], tile: int) -> list[list[int]]:
    return sorted(tiles, key=lambda found: _cost(found, tile), reverse=True)


def _key_tiles(
    groups: Sequence[Sequence[Row]], own: Sequence[Span], tile: int
) -> tuple[list[list[int]], list[Span]]:
    """Tiles of the keys `own` and of all that these ranges see, and the queries that see each."""
    rows = [row for group in groups for row in group]
    bounds = sorted({*own, *((row[2], row[3]) for row in rows)})
    tiles: list[list[int]] = []
    spans: list[Span] = []
    for start, end in _merged(bounds):
        near = [row for row in rows if row[2] < end and row[3] > start]
        for first in range(start, end, tile):
            last = min(first + tile, end)
            seen = sorted(_seen(row, first) for row in near if row[2] < last and row[3] > first)
            found = list(_merged(seen))
            tiles.append([first, last, len(spans), len(spans) + len(found)])
            spans += found
    tiles.sort(key=lambda found: -sum(b - a for a, b in spans[found[2] : found[3]]))
    return tiles, spans


def _seen(row: Row, key: int) -> Span:
    """The queries of a row that see `key` or one after it."""
    q_start, q_end, _, kv_end, kind = row
    return (max(q_start, q_end - (kv_end - key)) if kind == Kind.CAUSAL else q_start, q_end)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Sorted spans, those that touch made one."""
    current: Span | None = None
    for a, b in spans:
        if current and a <= current[1]:
            current = (current[0], max(current[1], b))
        else:
            if current:
                yield current
            current = (a, b)
    if current:
        yield current


def _table(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    return torch.tensor([list(row) for row in rows], dtype=torch.int32).view(-1, width)
