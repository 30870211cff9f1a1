"""Dense blocks: which ranges share one, and how tensors are brought in and back."""

import numpy as np
import pytest
import torch

from trimodal_kernels import Kind, Segments
from trimodal_kernels.blocks import Blocks, Dense

FULL, CAUSAL = Kind.FULL, Kind.CAUSAL


def _blocks(rows: list[tuple[int, ...]], num_keys: int | None = None) -> Blocks:
    return Segments.from_rows(rows, rows[-1][1], num_keys).blocks


@pytest.mark.parametrize("seed", range(4))
def test_every_token_has_one_slot_that_holds_it(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 70, 50)
    blocks = Segments.from_lengths(int(length) for length in lengths).blocks
    slots = torch.cat([bucket.query_BQ.flatten() for bucket in blocks.buckets])
    assert torch.equal(slots[blocks.slot_T], torch.arange(int(lengths.sum())))


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 63, 64, 65, 1000])
def test_ranges_of_one_length_are_not_padded(length: int) -> None:
    (bucket,) = Segments.from_lengths([length, length]).blocks.buckets
    assert bucket.query_BQ.shape == bucket.key_BL.shape == (2, length)
    assert bucket.mask_B1QL is None


@pytest.mark.parametrize("seed", range(4))
def test_blocks_waste_at_most_an_eighth_or_seven_slots(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 300, 80).tolist()
    blocks = Segments.from_lengths(lengths).blocks
    assert len(blocks.buckets) <= 27
    sizes = torch.tensor(lengths)
    owner_T = torch.arange(len(lengths)).repeat_interleave(sizes)
    for bucket in blocks.buckets:
        held = sizes[owner_T[bucket.query_BQ[:, 0]]]
        room = torch.maximum(held + 7, held * 9 / 8)
        assert (bucket.query_BQ.shape[1] <= room).all()


def test_equal_ranges_need_no_mask() -> None:
    (bucket,) = Segments.from_lengths([16, 16, 16]).blocks.buckets
    assert bucket.query_BQ.shape == (3, 16)
    assert bucket.mask_B1QL is None


def test_rows_of_one_query_range_are_one_softmax() -> None:
    rows = [(0, 2, 0, 2, FULL), (2, 5, 0, 1, FULL), (2, 5, 2, 5, CAUSAL)]
    (bucket,) = _blocks(rows).buckets
    assert bucket.key_BL[1].tolist()[:4] == [0, 2, 3, 4]
    assert bucket.mask_B1QL is not None
    visible = bucket.mask_B1QL[1, 0].int().tolist()
    assert visible == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_causal_rows_are_aligned_at_the_bottom_right() -> None:
    (bucket,) = _blocks([(0, 3, 0, 3, FULL), (3, 5, 0, 5, CAUSAL)]).buckets
    assert bucket.mask_B1QL is not None
    assert bucket.mask_B1QL[1, 0, :2, :5].int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_padding_queries_see_a_key() -> None:
    """A row of the softmax without any key would be NaN, and spoil the gradients."""
    rows = [(0, 3, 0, 3, CAUSAL), (3, 8, 3, 8, CAUSAL)]
    for bucket in _blocks(rows).buckets:
        assert bucket.mask_B1QL is not None
        assert bool(bucket.mask_B1QL.any(-1).all())


@pytest.mark.parametrize("heads", [1, 3])
def test_what_is_brought_in_comes_back(heads: int) -> None:
    rows = [(0, 5, 0, 5, FULL), (5, 8, 0, 8, CAUSAL), (8, 20, 8, 20, FULL)]
    dense = _blocks(rows).dense(heads)
    x = torch.arange(20 * heads)
    slots = x[dense.gathers.query]
    assert torch.equal(slots[dense.gathers.output], x)
    keys = x[dense.gathers.key]
    assert torch.equal(keys[dense.gathers.first], x)
    slot, row = dense.gathers.again
    assert torch.equal(keys[slot], row)
    assert sorted(set((row // heads).tolist())) == [0, 1, 2, 3, 4]
    assert dense.gathers.unseen.numel() == 0
    assert len(dense.gathers.spare) == len(slots) - len(x)
    assert len(set(dense.gathers.spare.tolist()) & set(dense.gathers.output.tolist())) == 0


def test_keys_that_nobody_sees() -> None:
    gathers = _blocks([(0, 2, 1, 3, FULL)], num_keys=5).dense(2).gathers
    assert gathers.unseen.tolist() == [0, 1, 6, 7, 8, 9]
    assert gathers.again.shape == (2, 0)


def test_packing_a_plan_loses_nothing() -> None:
    dense = _blocks([(0, 5, 0, 5, FULL), (5, 8, 0, 8, CAUSAL), (8, 20, 8, 20, FULL)]).dense(2)
    again = Dense.unpacked(*dense.packed())
    assert again.shapes == dense.shapes
    for a, b in zip((*again.gathers, *again.masks), (*dense.gathers, *dense.masks), strict=True):
        assert (a is None and b is None) or (a is not None and b is not None and a.equal(b))
