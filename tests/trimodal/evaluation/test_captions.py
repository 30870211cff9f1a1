import math

import numpy as np
import pytest

from trimodal.evaluation.captions import cider
from trimodal.testing import assert_close


def test_by_hand() -> None:
    # log(2 / 1) = L for every n-gram that one of the two sets holds; `a` is in both and weighs 0
    references = ["a red dog runs", "a blue cat sleeps"]
    scores = cider(["a red dog", "a dog"], references)
    # unigrams: vectors (red, dog) and (red, dog, runs), cosine 2 / sqrt(2 * 3)
    # bigrams: (a red, red dog) and (a red, red dog, dog runs), the same; trigrams: 1 of 1 and of 2
    expected = (2 / math.sqrt(6) + 2 / math.sqrt(6) + 1 / math.sqrt(2) + 0) / 4
    assert_close(scores[0], np.float64(10 * expected * math.exp(-1 / 72)), "fp64")
    # `dog` is in none of the second set's n-grams
    assert scores[1] == 0.0


def test_weights_are_logarithms_of_document_frequencies() -> None:
    references = ["red", ["red", "blue"], "green"]
    scores = cider(["red", "blue", "green blue"], references)
    heavy, light = math.log(3), math.log(3 / 2)
    assert_close(scores[0], np.float64(10 / 4), "fp64")
    assert_close(scores[1], np.float64(10 / 4 * (0 + 1) / 2), "fp64")
    cosine = heavy / math.sqrt(2 * heavy**2)
    assert_close(scores[2], np.float64(10 / 4 * cosine * math.exp(-1 / 72)), "fp64")
    # `red` is in two sets, so beside `green` it weighs less than `blue` would
    mixed = cider(["red", "blue", "green red"], references)[2]
    cosine = heavy / math.hypot(heavy, light)
    assert_close(mixed, np.float64(10 / 4 * cosine * math.exp(-1 / 72)), "fp64")


def test_saying_a_thing_again_does_not_pay() -> None:
    references = ["one two three four", "five six seven eight"]
    once, twice = (cider([text, ""], references)[0] for text in ("one", "one one"))
    # clipped: min(2, 1) * 1 / (2 * 2); without clipping the cosine would stay
    assert_close(once, np.float64(10 / 4 * 1 / 2 * math.exp(-9 / 72)), "fp64")
    assert_close(twice, np.float64(10 / 4 * 1 / 4 * math.exp(-4 / 72)), "fp64")


@pytest.mark.parametrize(
    "references",
    [
        ["one red square here", "two blue rings there", "no more words left"],
        ["一个红色方块", "两条蓝鱼游", "他们都不见了"],
    ],
)
def test_identical_is_ten_and_disjoint_is_nothing(references: list[str]) -> None:
    assert_close(cider(references, references), [10.0] * 3, "fp64")
    assert cider(references[1:] + references[:1], references).tolist() == [0.0] * 3


def test_short_captions_and_lone_sets_have_their_limits() -> None:
    assert_close(cider(["one", "two"], ["one", "two"]), [2.5, 2.5], "fp64")
    assert cider(["one red square here"], ["one red square here"]).tolist() == [0.0]
    assert cider([], []).shape == (0,)
