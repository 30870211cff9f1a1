"""Attention over packed tokens: public names."""

from trimodal_kernels.attention.extras import Extras
from trimodal_kernels.attention.packed import attend, packed_attention
from trimodal_kernels.attention.turning import turn, turn_pair

__all__ = ["Extras", "attend", "packed_attention", "turn", "turn_pair"]
