import numpy as np
import pytest

from trimodal.evaluation.words import edit_distance, error_rate, exact, matches, normalise, tokens
from trimodal.streams import generator
from trimodal.testing import assert_close


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  A  Red\tSquare! ", "a red square"),
        ("Don’t: it's", "dont its"),
        ("red,blue", "red blue"),
        ("红色的 方块。", "红色的方块"),
        ("「红色」,blue 〇 one", "红色blue〇one"),
        ("ＡＢＣ１２", "abc12"),
        ("STRASSE straße", "strasse strasse"),
        ("?!", ""),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


def test_ideographs_are_words() -> None:
    assert tokens("红色的red方块 2 个") == ["红", "色", "的", "red", "方", "块", "2", "个"]
    assert tokens("ab c", "characters") == ["a", "b", " ", "c"]


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("flaw", "lawn", 2)],
)
def test_edit_distance_by_hand(a: str, b: str, edits: int) -> None:
    assert edit_distance(list(a), list(b)) == edits
    assert edit_distance(list(b), list(a)) == edits


def test_edit_distance_is_the_textbook_recursion() -> None:
    rng = generator("edits")
    for _ in range(30):
        a, b = ("".join(rng.choice(list("abc"), rng.integers(0, 9))) for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        table[:, 0], table[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
        for i in range(1, len(a) + 1):
            for j in range(1, len(b) + 1):
                table[i, j] = min(
                    table[i - 1, j] + 1,
                    table[i, j - 1] + 1,
                    table[i - 1, j - 1] + (a[i - 1] != b[j - 1]),
                )
        assert edit_distance(a, b) == table[-1, -1]


def test_error_rate_is_one_of_the_whole_corpus() -> None:
    # 1 replaced of 3 words, 2 inserted to 1 word: 3 / 4, where the mean of the rates is 7 / 6
    assert_close(error_rate(["a red circle", "no one here"], ["a red square", "one"]), 0.75, "fp64")
    assert_close(error_rate(["squere"], ["square"], "characters"), 1 / 6, "fp64")


def test_chinese_by_words_and_by_characters() -> None:
    assert_close(error_rate(["红色方块"], ["红色的方块。"]), 1 / 5, "fp64")
    assert_close(error_rate(["红色 方块"], ["红色的方块。"], "characters"), 1 / 5, "fp64")


def test_of_several_references_the_nearest_counts() -> None:
    assert error_rate(["Seven."], [["the digit seven", "seven"]]) == 0.0
    # 1 edit of 1 word is dearer than 2 of 4
    assert_close(error_rate(["a b"], [["c", "a b c d"]]), 0.5, "fp64")


def test_silence_is_all_wrong_and_nothing_is_no_error() -> None:
    assert error_rate(["", ""], ["one two", "three"]) == 1.0
    assert error_rate([], []) == 0.0
    assert error_rate(["noise"], ["…"]) == 1.0


def test_exact_normalises_and_takes_any_reference() -> None:
    hypotheses = ["A red square.", "红 色", "blue"]
    references = ["a red square", ["蓝色", "红色"], ["red", "green"]]
    assert matches(hypotheses, references).tolist() == [True, True, False]
    assert_close(exact(hypotheses, references), 2 / 3, "fp64")
    assert exact([], []) == 0.0


def test_lists_of_different_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        error_rate(["a", "b"], ["a"])
