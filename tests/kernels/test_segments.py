"""The segment table: what it accepts, and how it is cut into dense blocks."""

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
    assert segments.table_S5.dtype == torch.int32


def test_empty_segments_have_no_row() -> None:
    assert _rows(Segments.from_lengths([0, 2, 0, 1, 0])) == [[0, 2, 0, 2, 0], [2, 3, 2, 3, 0]]


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_table_of_no_tokens(lengths: list[int]) -> None:
    segments = Segments.from_lengths(lengths)
    assert segments.num_tokens == 0
    assert segments.table_S5.shape == (0, 5)
    assert segments.blocks.buckets == ()
    assert segments.tiles.query_NC.shape == (0, 4)


def test_moving_takes_plans_along() -> None:
    segments = Segments.from_lengths([3, 5, 16])
    here = segments.plan("cpu", 2)
    moved = segments.to("meta")
    assert moved.groups == segments.groups
    assert all(x.is_meta for x in moved.plan("cpu", 2).tables)
    assert moved.plan("cpu", 2).sizes == here.sizes
    assert moved.plan("triton", 2).tables[0].is_meta
    assert segments.to("cpu") is segments


def test_a_plan_is_made_once() -> None:
    segments = Segments.from_lengths([3, 5])
    segments.prepare(2)
    assert segments.plan("cpu", 2) is segments.plan("cpu", 2)
    assert segments.plan("cpu", 2) is not segments.plan("cpu", 4)
    assert segments.plan("triton", 2) is segments.plan("triton", 4)


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([(0, 3, 0, 3, FULL), (3, 6, 3, 6, FULL)], 3),
        ([(0, 3, 0, 3, FULL), (3, 5, 3, 5, FULL)], None),
        ([(0, 3, 0, 3, CAUSAL)], None),
        ([(0, 3, 0, 3, FULL), (3, 6, 0, 3, FULL)], None),
        ([(0, 3, 0, 1, FULL), (0, 3, 1, 3, FULL)], None),
    ],
)
def test_the_length_of_segments_that_are_all_as_long(
    rows: list[tuple[int, ...]], length: int | None
) -> None:
    size = rows[-1][1]
    assert Segments.from_rows(rows, size).uniform == length
    assert Segments.from_rows(rows, size, num_keys=size).uniform is None


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
    with pytest.raises(ValueError, match=r"key range \[4, 7\) is not within 6 tokens"):
        Segments.from_rows(rows, num_tokens=3, num_keys=6)
