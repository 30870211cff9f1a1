"""Keys and values of what has been computed, so that decoding does not compute it again.

cache = KeyValueCache(config, rooms=[40, 52], like=table)
h_TD = trunk(x_TD, tokens, cache.at(slot_T))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from trimodal.config import TransformerConfig


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
    """A room of slots for each sequence, the rooms end to end; a segment table says who sees what.

    Sequences grow in place within their rooms, so nothing is padded and nothing is copied.
    """

    def __init__(self, config: TransformerConfig, rooms: Sequence[int], like: Tensor) -> None:
        self.starts = [0, *accumulate(rooms)]
        shape = (self.num_slots, config.num_heads, config.width // config.num_heads)
        self.keys = [like.new_zeros(shape) for _ in range(config.depth)]
        self.values = [like.new_zeros(shape) for _ in range(config.depth)]

    @property
    def num_slots(self) -> int:
        """Of all rooms together."""
        return self.starts[-1]

    def at(self, slot_T: Tensor) -> list[Memory]:
        """For each block, where the tokens that are computed now are to be put."""
        return [Memory(k, v, slot_T) for k, v in zip(self.keys, self.values, strict=True)]
