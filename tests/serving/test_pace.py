from itertools import cycle, islice

import numpy as np
import pytest

from trimodal_serving.pace import Pace


def paced(fixed: float, each: float, sizes: list[int], noise: float = 0.0) -> Pace:
    rng, pace = np.random.default_rng(0), Pace()
    for tokens in islice(cycle(sizes), 60):
        pace.observe(tokens, (fixed + each * tokens) * (1 + noise * rng.random()))
    return pace


def test_nothing_is_known_at_first() -> None:
    assert Pace().fitting(1.0) is None


@pytest.mark.parametrize("sizes", [[1, 400], [10, 20, 40], [7, 7, 7, 300]])
def test_small_batches_do_not_make_a_token_dear(sizes: list[int]) -> None:
    assert paced(0.012, 0.0002, sizes).fitting(0.05) == pytest.approx(190)
    assert paced(0.012, 0.0002, sizes, noise=0.2).fitting(0.05) == pytest.approx(190, rel=0.4)


def test_a_batch_is_worth_what_it_takes_to_begin_one() -> None:
    """Where one of a single token takes longer than is asked, half of a batch is for its tokens."""
    assert paced(0.2, 0.001, [1, 100]).fitting(0.05) == pytest.approx(200)


def test_batches_of_one_size_tell_the_mean() -> None:
    assert paced(0.0, 0.001, [50]).fitting(0.05) == pytest.approx(50)
    assert paced(0.05, 0.0, [50]).fitting(0.1) == pytest.approx(100)


def test_chance_does_not_make_a_token_free() -> None:
    """Larger batches were faster, as something else held up the smaller ones."""
    pace = Pace()
    for tokens, seconds in ((10, 0.05), (100, 0.02)) * 10:
        pace.observe(tokens, seconds)
    fitting = pace.fitting(0.05)
    assert fitting is not None
    assert 0 < fitting <= 10 * 55 / 0.035 * 0.05


def test_what_was_long_ago_fades() -> None:
    pace = paced(0.0, 0.01, [10, 20])
    for tokens in islice(cycle([10, 20]), 100):
        pace.observe(tokens, 0.001 * tokens)
    assert pace.fitting(0.05) == pytest.approx(50, rel=0.01)
