"""Dense blocks of similar query ranges, in which a device without a ragged kernel computes.

blocks = plan_blocks(groups, num_tokens=T, num_keys=None)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trimodal_kernels.tiles import Kind, Row


class Bucket(NamedTuple):
    """Query ranges of similar size, as a dense block of B ranges of Q queries and L keys."""

    query_BQ: Tensor
    """Token of each query slot; a slot past the end repeats token 0 and is never read back."""
    key_BL: Tensor
    """Token of each key slot; a slot past the end repeats token 0 and is masked."""
    mask_B1QL: Tensor | None
    """True where a query sees a key; None where every query sees every key; Q may be 1."""


class Gathers(NamedTuple):
    """Rows of (T H, K) in the order of the slots of all buckets; in each, heads come first."""

    query: Tensor
    """Row of each query slot."""
    key: Tensor
    """Row of each key slot."""
    output: Tensor
    """Query slot of each row."""
    spare: Tensor
    """Query slots past the end."""
    first: Tensor
    """A key slot of each row, 0 of one that nobody sees."""
    again: Tensor
    """Further key slots of some rows, and these rows, (2, n)."""
    unseen: Tensor
    """Rows that nobody sees."""


class Dense(NamedTuple):
    """How a table is computed for some number of heads."""

    gathers: Gathers
    masks: Sequence[Tensor | None]
    """Of each bucket, see `Bucket`."""
    shapes: Sequence[tuple[int, int, int]]
    """B, Q, L of each bucket."""
    uniform: int
    """The length of segments that are all as long and see all of themselves, and then nothing else
    is told; else 0."""

    def packed(self) -> tuple[list[Tensor], list[int]]:
        """The same as a list of tensors and a list of numbers."""
        masks = [torch.zeros(0, dtype=torch.bool) if m is None else m for m in self.masks]
        sizes = [size for shape in self.shapes for size in shape]
        return [*self.gathers, *masks], [self.uniform, *sizes]

    @classmethod
    def of_uniform(cls, length: int) -> "Dense":
        """Of segments that are all as long: nothing is gathered."""
        nothing = (torch.zeros(0, dtype=torch.int64) for _ in Gathers._fields)
        return cls(Gathers(*nothing), [], [], length)

    @classmethod
    def unpacked(cls, tables: Sequence[Tensor], sizes: Sequence[int]) -> "Dense":
        """From what `packed` made."""
        count = len(Gathers._fields)
        masks = [None if mask.dim() == 1 else mask for mask in tables[count:]]
        shapes = list(zip(sizes[1::3], sizes[2::3], sizes[3::3], strict=True))
        return cls(Gathers(*tables[:count]), masks, shapes, sizes[0])


class Blocks(NamedTuple):
    """The buckets of a segment table."""

    buckets: tuple[Bucket, ...]
    slot_T: Tensor
    """Where the result of each token lies in the flattened query slots of all buckets."""
    num_keys: int

    def dense(self, heads: int) -> Dense:
        """How tensors of so many heads are brought into the blocks and back; see `Dense`."""
        shapes = [(len(b.key_BL), b.query_BQ.shape[1], b.key_BL.shape[1]) for b in self.buckets]
        masks = [b.mask_B1QL for b in self.buckets]
        return Dense(_gathers(self, heads), masks, shapes, 0)


def plan_blocks(
    groups: Sequence[Sequence[Row]], num_tokens: int, num_keys: int | None = None
) -> Blocks:
    """The blocks of a table's query ranges.

    Args:
        groups: its rows by query range, in order, as `Segments.from_rows` has checked them.
        num_tokens: queries.
        num_keys: keys, if they are others than the queries.
    """
    shapes: dict[tuple[int, int], list[Sequence[Row]]] = {}
    for group in groups:
        length = sum(row[3] - row[2] for row in group)
        shape = (_round_up(group[0][1] - group[0][0]), _round_up(length))
        shapes.setdefault(shape, []).append(group)
    slot = np.full(num_tokens, -1, dtype=np.int64)
    buckets, offset = [], 0
    for _, members in sorted(shapes.items()):
        # no larger than the largest of its ranges
        shape = (
            max(group[0][1] - group[0][0] for group in members),
            max(sum(row[3] - row[2] for row in group) for group in members),
        )
        buckets.append(_bucket(shape, members, slot, offset))
        offset += shape[0] * len(members)
    keys = num_tokens if num_keys is None else num_keys
    return Blocks(tuple(buckets), torch.from_numpy(slot), keys)


def _round_up(length: int) -> int:
    """Block sizes an eighth apart, at least 8: few blocks hold many lengths at little waste."""
    step = max(8, 1 << max(0, length.bit_length() - 4))
    return -(-length // step) * step


def _bucket(
    shape: tuple[int, int], members: Sequence[Sequence[Row]], slot: np.ndarray, offset: int
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


def _gathers(blocks: Blocks, heads: int) -> Gathers:
    size = len(blocks.slot_T)
    real = torch.zeros(sum(b.query_BQ.numel() for b in blocks.buckets), dtype=torch.bool)
    real[blocks.slot_T] = True
    reals = real.split([b.query_BQ.numel() for b in blocks.buckets])
    queries, keys, used, seen = [], [], [], []
    for bucket, real_BQ in zip(blocks.buckets, reals, strict=True):
        queries.append(_by_head(bucket.query_BQ, heads))
        keys.append(_by_head(bucket.key_BL, heads))
        used.append(real_BQ.view_as(bucket.query_BQ)[:, None].expand(-1, heads, -1).flatten())
        key_BL = torch.ones_like(bucket.key_BL, dtype=torch.bool)
        if bucket.mask_B1QL is not None:
            key_BL = bucket.mask_B1QL[:, 0].any(1)
        seen.append(key_BL[:, None].expand(-1, heads, -1).flatten())
    query, key = _joined(queries), _joined(keys)
    used, slots = _joined(used).bool(), _joined(seen).bool().nonzero().flatten()
    output = torch.empty(size * heads, dtype=torch.int64)
    output[query[used]] = used.nonzero().flatten()
    first, again, unseen = _first_of_each(key[slots], slots, blocks.num_keys * heads)
    return Gathers(query, key, output, (~used).nonzero().flatten(), first, again, unseen)


def _by_head(index_BS: Tensor, heads: int) -> Tensor:
    return (index_BS[:, None] * heads + torch.arange(heads)[:, None]).flatten()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=torch.int64)


def _first_of_each(row: Tensor, slot: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A slot of every row, the further ones with their rows, and the rows without any."""
    order = row.argsort(stable=True)
    row, slot = row[order], slot[order]
    is_first = torch.ones_like(row, dtype=torch.bool)
    is_first[1:] = row[1:] != row[:-1]
    first = torch.full((size,), -1)
    first[row[is_first]] = slot[is_first]
    unseen = (first < 0).nonzero().flatten()
    return first.clamp(min=0), torch.stack([slot[~is_first], row[~is_first]]), unseen
