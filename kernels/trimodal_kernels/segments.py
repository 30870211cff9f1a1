"""The segment table: which packed tokens attend to which.

Segments.from_rows([(0, 3, 0, 3, Kind.FULL), (3, 8, 3, 8, Kind.FULL)], num_tokens=8)
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from trimodal_kernels.blocks import Blocks, Dense, plan_blocks
from trimodal_kernels.dispatch import Implementation, chosen
from trimodal_kernels.tiles import Kind, Row, Tiles, plan_tiles


class Plan(NamedTuple):
    """What an operation is given of a table: tensors and numbers."""

    tables: list[Tensor]
    sizes: list[int]


@dataclass(frozen=True)
class Segments:
    """A segment table, and the plans by which devices compute under it.

    Rows with the same query range are one softmax over disjoint key ranges. Every token is the
    query of exactly one range.
    """

    groups: tuple[tuple[Row, ...], ...]
    """Rows q_start, q_end, kv_start, kv_end, kind, by query range."""
    num_tokens: int
    """T, the number of packed tokens."""
    num_keys: int | None = None
    """Keys, if they are others than the queries."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _plans: dict[tuple[Implementation, int], Plan] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def from_lengths(cls, lengths: Iterable[int]) -> "Segments":
        """Segments end to end, each attending to itself in full."""
        bounds = [0, *itertools.accumulate(lengths)]
        rows = [(a, b, a, b, Kind.FULL) for a, b in itertools.pairwise(bounds) if b > a]
        return cls.from_rows(rows, bounds[-1])

    @classmethod
    def from_rows(
        cls, rows: Sequence[Row], num_tokens: int, num_keys: int | None = None
    ) -> "Segments":
        """Check a table.

        Args:
            rows: of the table.
            num_tokens: queries.
            num_keys: keys, if they are others than the queries, as with cached ones.

        Raises:
            ValueError: the query ranges do not cover the tokens once, a key range is empty, outside
                the tokens or overlaps another of the same queries, or a query sees no key.
        """
        groups = _group(rows, num_tokens, num_tokens if num_keys is None else num_keys)
        return cls(tuple(tuple(group) for group in groups), num_tokens, num_keys)

    def to(self, device: torch.device | str) -> "Segments":
        """The same table for tensors on `device`; a plan that is there goes along."""
        device = torch.device(device)
        if device == self.device:
            return self
        moved = {
            key: Plan([x.to(device, non_blocking=True) for x in plan.tables], plan.sizes)
            for key, plan in self._plans.items()
        }
        return Segments(self.groups, self.num_tokens, self.num_keys, device, moved)

    @property
    def table_S5(self) -> Tensor:  # noqa: N802 - a tensor's name ends in its shape
        """int32 rows of q_start, q_end, kv_start, kv_end, kind, on the CPU."""
        rows = [[int(x) for x in row] for group in self.groups for row in group]
        return torch.tensor(rows, dtype=torch.int32).view(-1, 5)

    @property
    def blocks(self) -> Blocks:
        """Dense blocks, on the CPU."""
        return plan_blocks(self.groups, self.num_tokens, self.num_keys)

    @property
    def tiles(self) -> Tiles:
        """Tiles for the programs of a ragged kernel, on the CPU."""
        return plan_tiles(self.groups, self.num_tokens, self.num_keys)

    @cached_property
    def uniform(self) -> int | None:
        """The length of segments that are all as long and see all of themselves; else None."""
        lengths = {group[0][1] - group[0][0] for group in self.groups}
        return next(iter(lengths)) if len(lengths) == 1 and self._sees_itself else None

    @cached_property
    def _sees_itself(self) -> bool:
        return self.num_keys is None and all(
            len(group) == 1
            and tuple(group[0][:2]) == tuple(group[0][2:4])
            and group[0][4] == Kind.FULL
            for group in self.groups
        )

    def prepare(self, heads: int, way: Implementation | None = None) -> None:
        """Make a plan now, in a loader's process and not in the model's.

        Args:
            heads: of the attention.
            way: of the device that it is for, which a loader cannot ask about; None for this one.
        """
        self.plan(way or chosen(self.device), heads)

    def plan(self, way: Implementation, heads: int) -> Plan:
        """What an implementation is given; made once, on this table's device."""
        key = (way, heads if way == "cpu" else 0)
        if key not in self._plans:
            made = self._made(way, heads)
            self._plans[key] = Plan([x.to(self.device) for x in made.tables], made.sizes)
        return self._plans[key]

    def _dense(self, heads: int) -> Dense:
        return Dense.of_uniform(self.uniform) if self.uniform else self.blocks.dense(heads)

    def _made(self, way: Implementation, heads: int) -> Plan:
        if way == "cpu":
            return Plan(*self._dense(heads).packed())
        if way == "triton":
            return Plan(*self.tiles.packed())
        return Plan([self.tiles.low_RT, self.tiles.high_RT], [])


def _group(rows: Sequence[Row], num_tokens: int, num_keys: int) -> list[list[Row]]:
    groups: list[list[Row]] = []
    end = 0
    for row in rows:
        q_start, q_end, kv_start, kv_end, _ = row
        if not (0 <= kv_start < kv_end <= num_keys):
            raise ValueError(f"key range [{kv_start}, {kv_end}) is not within {num_keys} tokens")
        if groups and tuple(groups[-1][0][:2]) == (q_start, q_end):
            groups[-1].append(row)
        elif q_start == end < q_end:
            groups.append([row])
            end = q_end
        else:
            raise ValueError(f"query range [{q_start}, {q_end}) does not follow token {end}")
    if end != num_tokens:
        raise ValueError(f"query ranges end at {end}, there are {num_tokens} tokens")
    for group in groups:
        _check_keys(group)
    return groups


def _check_keys(group: list[Row]) -> None:
    q_start, q_end = group[0][:2]
    spans = sorted((row[2], row[3]) for row in group)
    if any(first[1] > second[0] for first, second in pairwise(spans)):
        raise ValueError(f"key ranges of queries [{q_start}, {q_end}) overlap")
    if not any(Kind(kind) is Kind.FULL or k1 - k0 >= q_end - q_start for *_, k0, k1, kind in group):
        raise ValueError(f"query {q_start} sees no key: a causal row has fewer keys than queries")
