"""The segment table: what it accepts, and how it is cut into dense blocks."""

import numpy as np
import pytest
import torch

from trimodal_kernels import Kind, Segments

FULL, CAUSAL = Kind.FULL, Kind.CAUSAL


def _rows(segments: Segments) -> list[list[int]]:
    return segments.table_S5.tolist()


def test_lengths_become_rows_end_to_end() -> None:
    segments = Segments.from_lengths([3, 1, 4])
    assert _rows(segments) == [[0, 3, 0, 3, 0], [3, 4, 3, 4, 0], [4, 8, 4, 8, 0]]
    assert segments.num_tokens == 8
    assert segments.keys_are_queries
    assert segments.table_S5.dtype == torch.int32


def test_empty_segments_have_no_row() -> None:
    assert _rows(Segments.from_lengths([0, 2, 0, 1, 0])) == [[0, 2, 0, 2, 0], [2, 3, 2, 3, 0]]


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_table_of_no_tokens(lengths: list[int]) -> None:
    segments = Segments.from_lengths(lengths)
    assert segments.num_tokens == 0
    assert segments.table_S5.shape == (0, 5)
    assert segments.buckets == ()


@pytest.mark.parametrize("seed", range(4))
def test_every_token_has_one_slot_that_holds_it(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 70, 50)
    segments = Segments.from_lengths(int(length) for length in lengths)
    slots = torch.cat([bucket.query_BQ.flatten() for bucket in segments.buckets])
    assert torch.equal(slots[segments.slot_T], torch.arange(int(lengths.sum())))


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 63, 64, 65, 1000])
def test_blocks_waste_at_most_an_eighth(length: int) -> None:
    (bucket,) = Segments.from_lengths([length]).buckets
    assert length <= bucket.query_BQ.shape[1] <= max(length + 1, length * 9 / 8)


def test_equal_ranges_need_no_mask() -> None:
    (bucket,) = Segments.from_lengths([16, 16, 16]).buckets
    assert bucket.query_BQ.shape == (3, 16)
    assert bucket.mask_B1QL is None


def test_rows_of_one_query_range_are_one_softmax() -> None:
    rows = [(0, 2, 0, 2, FULL), (2, 5, 0, 1, FULL), (2, 5, 2, 5, CAUSAL)]
    segments = Segments.from_rows(rows, num_tokens=5)
    assert not segments.keys_are_queries
    bucket = next(bucket for bucket in segments.buckets if 2 in bucket.query_BQ)
    assert bucket.key_BL[0].tolist()[:4] == [0, 2, 3, 4]
    assert bucket.mask_B1QL is not None
    visible = bucket.mask_B1QL[0, 0, :3].int().tolist()
    assert visible == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_causal_rows_are_aligned_at_the_bottom_right() -> None:
    segments = Segments.from_rows([(0, 3, 0, 3, FULL), (3, 5, 0, 5, CAUSAL)], num_tokens=5)
    bucket = next(bucket for bucket in segments.buckets if 4 in bucket.query_BQ)
    assert bucket.mask_B1QL is not None
    assert bucket.mask_B1QL[0, 0, :2, :5].int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_padding_queries_see_a_key() -> None:
    """A row of the softmax without any key would be NaN, and spoil the gradients."""
    rows = [(0, 3, 0, 3, CAUSAL), (3, 8, 3, 8, CAUSAL)]
    for bucket in Segments.from_rows(rows, num_tokens=8).buckets:
        assert bucket.mask_B1QL is not None
        assert bool(bucket.mask_B1QL.any(-1).all())


def test_moving_keeps_the_table() -> None:
    segments = Segments.from_lengths([3, 5, 16])
    moved = segments.to("meta")
    assert moved.table_S5.is_meta
    assert moved.slot_T.is_meta
    assert moved.keys_are_queries
    assert len(moved.buckets) == len(segments.buckets)
    for before, after in zip(segments.buckets, moved.buckets, strict=True):
        assert (before.mask_B1QL is None) == (after.mask_B1QL is None)
        assert after.query_BQ.shape == before.query_BQ.shape


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([(0, 2, 0, 2, FULL), (3, 4, 3, 4, FULL)], r"query range \[3, 4\) does not follow token 2"),
        ([(0, 2, 0, 2, FULL), (1, 4, 1, 4, FULL)], r"query range \[1, 4\) does not follow token 2"),
        ([(0, 0, 0, 2, FULL)], r"query range \[0, 0\) does not follow token 0"),
        ([(0, 2, 0, 2, FULL)], r"query ranges end at 2, there are 4 tokens"),
        ([], r"query ranges end at 0, there are 4 tokens"),
        ([(0, 4, 0, 5, FULL)], r"key range \[0, 5\) is not within 4 tokens"),
        ([(0, 4, -1, 2, FULL)], r"key range \[-1, 2\) is not within 4 tokens"),
        ([(0, 4, 2, 2, FULL)], r"key range \[2, 2\) is not within 4 tokens"),
        ([(0, 4, 0, 3, FULL), (0, 4, 2, 4, FULL)], r"key ranges of queries \[0, 4\) overlap"),
        (
            [(0, 1, 0, 1, FULL), (1, 4, 0, 2, CAUSAL)],
            r"query 1 sees no key: a causal row has fewer",
        ),
        ([(0, 4, 0, 4, 7)], r"7 is not a valid Kind"),
    ],
    ids=[
        *("gap", "overlap", "empty-query", "short", "none", "beyond", "negative", "empty-key"),
        *("overlapping-keys", "no-key", "kind"),
    ],
)
def test_a_table_that_is_none(rows: list[tuple[int, ...]], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        Segments.from_rows(rows, num_tokens=4)


def test_keys_may_be_others_than_the_queries() -> None:
    """Two cached sequences of 4 and 3 slots, behind each of which something new stands."""
    rows = [(0, 2, 0, 4, FULL), (2, 3, 4, 7, CAUSAL)]
    segments = Segments.from_rows(rows, num_tokens=3, num_keys=7)
    assert segments.num_tokens == 3
    assert not segments.keys_are_queries
    with pytest.raises(ValueError, match=r"key range \[4, 7\) is not within 6 tokens"):
        Segments.from_rows(rows, num_tokens=3, num_keys=6)


def test_keys_that_look_like_the_queries_are_still_others() -> None:
    rows = [(0, 2, 0, 2, FULL), (2, 4, 2, 4, FULL)]
    assert Segments.from_rows(rows, num_tokens=4).keys_are_queries
    assert not Segments.from_rows(rows, num_tokens=4, num_keys=6).keys_are_queries
