"""The segment table: which packed tokens attend to which.

Segments.from_rows([(0, 3, 0, 3, Kind.FULL), (3, 8, 3, 8, Kind.FULL)], num_tokens=8)
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Row = Sequence[int]
"""q_start, q_end, kv_start, kv_end, kind."""


class Kind(IntEnum):
    """How the queries of a row see its keys."""

    FULL = 0
    CAUSAL = 1
    """Aligned at the bottom right: the last query sees every key."""


class Bucket(NamedTuple):
    """Query ranges of similar size, as a dense block of B ranges of Q queries and L keys."""

    query_BQ: Tensor
    """Token of each query slot; a slot past the end repeats token 0 and is never read back."""
    key_BL: Tensor
    """Token of each key slot; a slot past the end repeats token 0 and is masked."""
    mask_B1QL: Tensor | None
    """True where a query sees a key; None where every query sees every key; Q may be 1."""


@dataclass(frozen=True)
class Segments:
    """A segment table and the dense blocks in which a device without a ragged kernel computes it.

    Rows with the same query range are one softmax over disjoint key ranges. Every token is the
    query of exactly one range.
    """

    table_S5: Tensor
    """int32 rows of q_start, q_end, kv_start, kv_end, kind."""
    buckets: tuple[Bucket, ...]
    slot_T: Tensor
    """Where the result of each token lies in the flattened query slots of all buckets."""
    keys_are_queries: bool
    """Every range attends to exactly itself, so each token is a key once as it is a query once."""

    @property
    def num_tokens(self) -> int:
        """T, the number of packed tokens."""
        return self.slot_T.numel()

    def to(self, device: torch.device | str) -> "Segments":
        """The same table with its tensors on `device`."""
        buckets = tuple(
            Bucket(
                query.to(device, non_blocking=True),
                key.to(device, non_blocking=True),
                None if mask is None else mask.to(device, non_blocking=True),
            )
            for query, key, mask in self.buckets
        )
        table, slot = (t.to(device, non_blocking=True) for t in (self.table_S5, self.slot_T))
        return Segments(table, buckets, slot, self.keys_are_queries)

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
        """Check a table and plan its blocks.

        Args:
            rows: of the table.
            num_tokens: queries.
            num_keys: keys, if they are others than the queries, as with cached ones.

        Raises:
            ValueError: the query ranges do not cover the tokens once, a key range is empty, outside
                the tokens or overlaps another of the same queries, or a query sees no key.
        """
        groups = _group(rows, num_tokens, num_tokens if num_keys is None else num_keys)
        blocks: dict[tuple[int, int], list[list[Row]]] = {}
        for group in groups:
            length = sum(row[3] - row[2] for row in group)
            shape = (_round_up(group[0][1] - group[0][0]), _round_up(length))
            blocks.setdefault(shape, []).append(group)
        slot = np.full(num_tokens, -1, dtype=np.int64)
        buckets, offset = [], 0
        for shape, members in sorted(blocks.items()):
            buckets.append(_bucket(shape, members, slot, offset))
            offset += shape[0] * len(members)
        return cls(
            table_S5=torch.tensor([list(row) for row in rows], dtype=torch.int32).view(-1, 5),
            buckets=tuple(buckets),
            slot_T=torch.from_numpy(slot),
            keys_are_queries=num_keys is None
            and all(len(g) == 1 and g[0][:2] == g[0][2:4] for g in groups),
        )


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


def _round_up(length: int) -> int:
    """Block sizes an eighth apart, so that few blocks hold many lengths at little waste."""
    step = max(2, 1 << max(0, length.bit_length() - 4))
    return -(-length // step) * step


def _bucket(
    shape: tuple[int, int], members: list[list[Row]], slot: np.ndarray, offset: int
) -> Bucket:
    num_queries, num_keys = shape
    query = np.zeros((len(members), num_queries), dtype=np.int64)
    key = np.zeros((len(members), num_keys), dtype=np.int64)
    causal = any(row[4] == Kind.CAUSAL for group in members for row in group)
    mask = np.zeros((len(members), num_queries if causal else 1, num_keys), dtype=bool)
    for i, group in enumerate(members):
        q_start, q_end = group[0][:2]
        length = q_end - q_start
        query[i, :length] = np.arange(q_start, q_end)
        slot[q_start:q_end] = offset + i * num_queries + np.arange(length)
        at = 0
        for _, _, kv_start, kv_end, kind in group:
            span = kv_end - kv_start
            key[i, at : at + span] = np.arange(kv_start, kv_end)
            if kind == Kind.CAUSAL:
                lower = np.tri(length, span, k=span - length, dtype=bool)
                mask[i, :length, at : at + span] = lower
                mask[i, length:, at] = True
            else:
                mask[i, :, at : at + span] = True
            at += span
    dense = None if mask.all() else torch.from_numpy(mask[:, None])
    return Bucket(torch.from_numpy(query), torch.from_numpy(key), dense)
