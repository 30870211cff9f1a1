import pytest
import torch

from trimodal.bench import towers
from trimodal.bench.towers import caption_lengths, text_tower_rows, training_step_row
from trimodal.errors import NumericError


def test_captions_are_as_long_as_captions() -> None:
    lengths = caption_lengths(2000)
    assert min(lengths) >= 8
    assert max(lengths) <= 77
    assert 16 < sum(lengths) / len(lengths) < 20
    assert caption_lengths(20) == caption_lengths(20)


def test_rows_of_the_text_tower() -> None:
    context, longest = text_tower_rows(rounds=1, count=3)
    assert (context.gate, longest.gate) == (3.0, 1.8)
    assert "padded to 77" in context.name
    assert min(context.ours, context.theirs, longest.theirs) > 0


def test_what_differs_is_not_timed() -> None:
    answers = iter([torch.ones(3), torch.ones(3) * 1.01])
    with pytest.raises(NumericError, match=r"packed and padded gradients differ by 9.9e-03"):
        training_step_row(lambda: [next(answers)], [], rounds=1)
    assert towers.TOLERANCE < 9e-3
