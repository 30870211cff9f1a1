"""Keys and values of what has been computed, so that decoding does not compute it again.

cache = KeyValueCache(config, like=table); starts = cache.take([40, 52])
h_TD = trunk(x_TD, tokens, cache.at(slot_T)); cache.give(starts)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimodal.config import TransformerConfig

GROWTH = 1.5


@dataclass(frozen=True)
class Memory:
    """Where the keys and values of one block go, and all that are there."""

    key_SHK: Tensor
    value_SHK: Tensor
    slot_T: Tensor
    """int64, the slot of each token that is computed now."""

    def write(self, k_THK: Tensor, v_THK: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new ones into their slots and return every slot."""
        self.key_SHK.index_copy_(0, self.slot_T, k_THK)
        self.value_SHK.index_copy_(0, self.slot_T, v_THK)
        return self.key_SHK, self.value_SHK


class KeyValueCache:
    """Rooms of slots for sequences that come and go; a segment table says who sees what.

    Sequences grow in place within their rooms, so nothing is padded. A room that is given back is
    taken again, the first gap that is large enough; if there is none, the cache grows.
    """

    def __init__(self, config: TransformerConfig, like: Tensor) -> None:
        shape = (0, config.num_heads, config.width // config.num_heads)
        self.keys = [like.new_zeros(shape) for _ in range(config.depth)]
        self.values = [like.new_zeros(shape) for _ in range(config.depth)]
        self._rooms: dict[int, int] = {}
        """Where a room that is taken begins, and its slots."""

    @property
    def num_slots(self) -> int:
        """Of all rooms, and the gaps between them."""
        return len(self.keys[0])

    def take(self, rooms: Sequence[int]) -> list[int]:
        """Where each of some new rooms begins.

        Args:
            rooms: their slots, one at least.
        """
        starts = []
        for room in rooms:
            start = self._gap(room)
            self._rooms[start] = room
            starts.append(start)
        try:
            self._reach(max((start + self._rooms[start] for start in starts), default=0))
        except BaseException:
            self.give(starts)
            raise
        return starts

    def give(self, starts: Iterable[int]) -> None:
        """Give rooms back."""
        for start in starts:
            del self._rooms[start]

    def _gap(self, room: int) -> int:
        at = 0
        for start in sorted(self._rooms):
            if start - at >= room:
                break
            at = start + self._rooms[start]
        return at

    def _reach(self, slots: int) -> None:
        """Grow to a number of slots at least, what is there stays where it is."""
        if slots <= self.num_slots:
            return
        more = max(slots, int(GROWTH * self.num_slots)) - self.num_slots
        grown = [  # all or none, should there be no memory for it
            [torch.cat([old, old.new_zeros((more, *old.shape[1:]))]) for old in memories]
            for memories in (self.keys, self.values)
        ]
        self.keys, self.values = grown

    def at(self, slot_T: Tensor) -> list[Memory]:
        """For each block, where the tokens that are computed now are to be put."""
        return [Memory(k, v, slot_T) for k, v in zip(self.keys, self.values, strict=True)]
