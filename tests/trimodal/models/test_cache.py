import numpy as np
import torch

from trimodal.batch import Modality, Route, TokenBatch
from trimodal.config import TransformerConfig
from trimodal.models.cache import KeyValueCache
from trimodal.models.layers import Transformer
from trimodal.testing import assert_close
from trimodal_kernels import Kind, Segments

CONFIG = TransformerConfig(width=16, depth=2, num_heads=2)


def tokens(positions: list[int], segments: Segments) -> TokenBatch:
    size = len(positions)
    return TokenBatch(
        positions_T2=torch.tensor(positions)[:, None].expand(-1, 2),
        modality_T=torch.full((size,), int(Modality.TEXT)),
        route_T=torch.full((size,), int(Route.TARGET)),
        cu_seqlens=torch.tensor([0, size]),
        segments=segments,
    )


def test_rooms_lie_end_to_end_in_every_block() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    cache = KeyValueCache(CONFIG, like)
    assert cache.take([3, 1, 5]) == [0, 3, 4]
    assert cache.num_slots == 9
    memories = cache.at(torch.tensor([1]))
    assert len(memories) == CONFIG.depth
    for memory in memories:
        assert memory.key_SHK.shape == memory.value_SHK.shape == (9, 2, 8)
        assert memory.key_SHK.dtype == like.dtype
    assert len({memory.key_SHK.data_ptr() for memory in memories}) == CONFIG.depth


def test_rooms_that_are_given_back_are_taken_again() -> None:
    cache = KeyValueCache(CONFIG, torch.zeros(1))
    first, second, third = cache.take([4, 3, 2])
    cache.give([second])
    assert cache.take([2]) == [4], "the gap"
    assert cache.take([2]) == [9], "what is left of it is too small"
    cache.give([first, third])
    assert cache.take([5, 4]) == [11, 0]


def test_no_two_rooms_overlap_and_what_is_there_stays() -> None:
    draws = np.random.default_rng(0)
    cache = KeyValueCache(CONFIG, torch.zeros(1))
    rooms: dict[int, int] = {}
    values: dict[int, float] = {}
    for value in range(1, 400):
        if rooms and draws.random() < 0.45:
            start = int(draws.choice(list(rooms)))
            cache.give([start])
            del rooms[start]
            continue
        size = int(draws.integers(1, 10))
        (start,) = cache.take([size])
        taken = {i for at, length in rooms.items() for i in range(at, at + length)}
        assert not taken & set(range(start, start + size))
        assert start + size <= cache.num_slots
        rooms[start] = size
        slots = torch.arange(start, start + size)
        cache.at(slots)[1].write(*torch.full((2, size, 2, 8), float(value)))
        values[start] = float(value)
        for at, length in rooms.items():
            assert (cache.values[1][at : at + length] == values[at]).all()
    assert len(rooms) > 20
    assert cache.num_slots < 2 * sum(rooms.values()), "gaps are filled"


def test_what_is_written_stays_in_its_slots() -> None:
    cache = KeyValueCache(CONFIG, torch.zeros(1))
    cache.take([4])
    k, v = torch.randn(2, 2, 8), torch.randn(2, 2, 8)
    keys, values = cache.at(torch.tensor([2, 0]))[0].write(k, v)
    assert torch.equal(keys[[2, 0]], k)
    assert torch.equal(values[[2, 0]], v)
    assert not keys[[1, 3]].any()
    keys, _ = cache.at(torch.tensor([1]))[0].write(k[:1] + 1, v[:1])
    assert torch.equal(keys[[2, 0]], k)
    assert torch.equal(keys[1], k[0] + 1)
    assert not cache.keys[1].any(), "the other block has memories of its own"


@torch.no_grad()
def test_a_causal_stack_is_the_same_with_a_cache_and_without() -> None:
    """Two sequences of 5 and 3 tokens, the first two of each at once, the rest one by one."""
    stack = Transformer(CONFIG).double().eval()
    lengths, x = [5, 3], torch.randn(8, 16, dtype=torch.float64)
    rows = [(0, 5, 0, 5, Kind.CAUSAL), (5, 8, 5, 8, Kind.CAUSAL)]
    expected = stack(x, tokens([*range(5), *range(3)], Segments.from_rows(rows, 8)))
    cache = KeyValueCache(CONFIG, like=x)
    starts = cache.take(lengths)
    begin = [(0, 2, 0, 2, Kind.CAUSAL), (2, 4, 5, 7, Kind.CAUSAL)]
    slots = torch.tensor([0, 1, 5, 6])
    first = tokens([0, 1, 0, 1], Segments.from_rows(begin, 4, cache.num_slots))
    assert_close(stack(x[slots], first, cache.at(slots)), expected[slots], "fp64")
    for sequence, at in ((0, 2), (1, 2), (0, 3), (0, 4)):
        start = starts[sequence]
        slot = torch.tensor([start + at])
        segments = Segments.from_rows(
            [(0, 1, start, start + at + 1, Kind.FULL)], 1, cache.num_slots
        )
        out = stack(x[slot], tokens([at], segments), cache.at(slot))
        assert_close(out, expected[slot], "fp64")
