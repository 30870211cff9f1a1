from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimodal.config import MixtureConfig, RunConfig, load_config
from trimodal.errors import ConfigError
from trimodal.streams import permutation
from trimodal.training.order import BLOCK, SampleOrder, apportion

SIZES = (100, 40, 7)


def mixed(config: RunConfig, *phases: tuple[int, tuple[float, ...]]) -> RunConfig:
    mixture = tuple(MixtureConfig(from_step=step, weights=weights) for step, weights in phases)
    data = replace(config.data, train=("a", "b", "c"), mixture=mixture)
    return replace(config, data=data)


def source(row: int) -> int:
    return int(np.searchsorted(np.cumsum(SIZES), row, side="right"))


def numbers(order: SampleOrder, count: int) -> list[int]:
    return [order.row(place) for place in range(count)]


def check_epochs(rows: list[int]) -> None:
    """Each manifest shows each of its rows once before it shows one again."""
    first = 0
    for size, own in zip(SIZES, range(3), strict=True):
        seen = [row for row in rows if source(row) == own]
        for epoch in range(len(seen) // size):
            each = seen[epoch * size : (epoch + 1) * size]
            assert sorted(each) == list(range(first, first + size))
        first += size


def test_without_a_mixture_all_rows_are_one_corpus(config: RunConfig) -> None:
    rows = numbers(SampleOrder(SIZES, config), 3 * 147)
    for epoch in range(3):
        expected = permutation(147, config.seed, epoch).tolist()
        assert rows[epoch * 147 : (epoch + 1) * 147] == expected


def test_a_block_has_what_the_weights_say(config: RunConfig) -> None:
    order = SampleOrder(SIZES, mixed(config, (0, (1.0, 2.0, 1.0))))
    rows = numbers(order, 4 * BLOCK)
    for block in range(4):
        sources = Counter(source(row) for row in rows[block * BLOCK : (block + 1) * BLOCK])
        assert sources == {0: BLOCK // 4, 1: BLOCK // 2, 2: BLOCK // 4}


def test_each_manifest_goes_through_epochs_of_its_own(config: RunConfig) -> None:
    rows = numbers(SampleOrder(SIZES, mixed(config, (0, (5.0, 2.0, 0.5)))), 3 * BLOCK)
    check_epochs(rows)


def test_a_curriculum_goes_on_where_the_phase_before_stopped(config: RunConfig) -> None:
    """A step of 8 samples; the second phase begins within a block, and with no row of the third."""
    phases = ((0, (1.0, 1.0, 1.0)), (200, (1.0, 3.0, 0.0)), (201, (0.0, 0.0, 1.0)))
    rows = numbers(SampleOrder(SIZES, mixed(config, *phases)), 3000)
    assert {source(row) for row in rows[: 200 * 8]} == {0, 1, 2}
    assert {source(row) for row in rows[200 * 8 : 201 * 8]} <= {0, 1}
    assert {source(row) for row in rows[201 * 8 :]} == {2}
    check_epochs(rows)


def test_any_place_is_found_without_those_before_it(config: RunConfig) -> None:
    chosen = mixed(config, (0, (1.0, 1.0, 1.0)), (150, (1.0, 3.0, 0.0)))
    rows = numbers(SampleOrder(SIZES, chosen), 2500)
    for place in (2499, 3, 1201, 1199, 1200, 2048):
        assert SampleOrder(SIZES, chosen).row(place) == rows[place]
    order = SampleOrder(SIZES, chosen)
    assert [order.row(place) for place in reversed(range(2500))] == rows[::-1]


def test_another_seed_is_another_order(config: RunConfig) -> None:
    chosen = mixed(config, (0, (1.0, 1.0, 1.0)))
    other = replace(chosen, seed=1)
    assert numbers(SampleOrder(SIZES, chosen), 50) != numbers(SampleOrder(SIZES, other), 50)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((1.0, 1.0, 1.0), [342, 341, 341]),
        ((1.0, 0.0, 3.0), [256, 0, 768]),
        ((1.0, 1023.0), [1, 1023]),
        ((7.0,), [1024]),
    ],
)
def test_shares_are_whole_and_add_up(weights: tuple[float, ...], shares: list[int]) -> None:
    assert apportion(MixtureConfig(weights=weights)) == shares


def test_a_weight_that_gives_no_place_is_refused() -> None:
    said = r"weight 1e-09 of data\.train\[0\], from step 5 on, is not one of 1,024 samples, so none"
    with pytest.raises(ConfigError, match=said):
        apportion(MixtureConfig(from_step=5, weights=(1e-9, 1.0, 1.0)))


def test_a_mixture_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "run_dir: x\nobjectives: {contrastive: {}}\n"
        "data: {train: [a, b], tokenizer: t, mixture: [{weights: [1, 3]}, "
        "{from_step: 50, weights: [1, 0]}]}\n"
    )
    config = load_config(path)
    assert config.data.mixture[1] == MixtureConfig(from_step=50, weights=(1.0, 0.0))
    for override, said in (
        ("data.mixture=[{weights: [1]}]", r"mixture\[0\]\.weights: needs a number for each of 2"),
        ("data.mixture=[{weights: [0, 0]}]", "not all of them 0"),
        ("data.mixture=[{from_step: 3, weights: [1, 1]}]", r"must rise from 0, got \[3\]"),
        (
            "data.mixture=[{weights: [1, 1]}, {weights: [1, 2]}]",
            r"must rise from 0, got \[0, 0\]",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(path, [override])
