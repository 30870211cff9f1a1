import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal.data import Row
from trimodal.errors import DataError
from trimodal.evaluation.zero_shot import (
    FROM_ROWS,
    Prompts,
    PromptVectors,
    embed_prompts,
    find_prompts,
    read_prompts,
    zero_shot,
)

ROWS = [
    Row(id="a", label="cat", texts={"en": "a cat", "zh": "猫"}),
    Row(id="b", label="dog", texts={"en": "a dog"}),
    Row(id="c", label="cat", texts={"en": "the cat"}),
    Row(id="d", texts={"en": "no label"}),
]
FILE = {"cat": {"en": ["cat", "a photo of a cat"]}, "dog": {"en": ["dog"]}}


def _write(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def test_prompts_of_the_rows_are_their_distinct_texts(tmp_path: Path) -> None:
    prompts = find_prompts(None, tmp_path / "test.jsonl", [*ROWS, ROWS[0]])
    assert prompts.source == FROM_ROWS
    assert prompts.texts == {
        "cat": {"en": ["a cat", "the cat"], "zh": ["猫"]},
        "dog": {"en": ["a dog"]},
    }
    assert prompts.languages == ["en"]  # one class alone is no choice


def test_a_file_beside_the_manifest_comes_before_the_rows(tmp_path: Path) -> None:
    path = _write(tmp_path / "prompts.json", FILE)
    prompts = find_prompts(None, tmp_path / "test.jsonl", ROWS)
    assert (prompts.source, prompts.texts) == (str(path), FILE)


def test_a_given_file_comes_before_the_one_beside(tmp_path: Path) -> None:
    _write(tmp_path / "prompts.json", {"cat": {"en": ["x"]}})
    given = _write(tmp_path / "given.json", FILE)
    assert find_prompts(given, tmp_path / "test.jsonl", ROWS).source == str(given)


def test_a_label_without_prompts_is_an_error(tmp_path: Path) -> None:
    given = _write(tmp_path / "given.json", {"cat": {"en": ["cat"]}})
    row = Row(id="b", label="dog", texts={"en": "a dog"}, where="test.jsonl:2")
    with pytest.raises(DataError, match=r"^test.jsonl:2: label 'dog' has no prompts in .*given"):
        find_prompts(given, tmp_path / "test.jsonl", [row])


@pytest.mark.parametrize(
    ("tree", "cause"),
    [
        ([], "expected an object with a key for each label"),
        ({"cat": ["cat"]}, "'cat' must hold an object of languages"),
        ({"cat": {"en": "cat"}}, "'cat', 'en' must be a list of texts"),
        ({"cat": {"en": []}}, "'cat', 'en' must be a list of texts"),
        ({"cat": {"en": [1]}}, "'cat', 'en' must be a list of texts"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, tree: Any, cause: str) -> None:
    path = _write(tmp_path / "p.json", tree)
    with pytest.raises(DataError) as error:
        read_prompts(path)
    assert str(error.value) == f"prompts {path}: {cause}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json cannot be read: No such file"):
        read_prompts(tmp_path / "nowhere.json")
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(DataError, match=r"p.json: not JSON"):
        read_prompts(tmp_path / "p.json")


def _prompted(source: str = "file") -> PromptVectors:
    """Two classes; the mean of cat's prompts is the first axis, its first prompt is not."""
    prompts = Prompts(source, {"cat": {"en": ["1", "2"]}, "dog": {"en": ["3"]}})
    half = np.sqrt(0.5)
    cat = np.array([[half, half, 0], [half, -half, 0]], dtype=np.float32)
    return PromptVectors(
        prompts, {("cat", "en"): cat, ("dog", "en"): np.array([[0, 1, 0]], dtype=np.float32)}
    )


def test_class_vectors_are_normalised_means() -> None:
    prompted = _prompted()
    np.testing.assert_allclose(prompted.class_vectors("en", 3), [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    bare = prompted.class_vectors("en", 3, bare=True)
    np.testing.assert_allclose(bare[0], [np.sqrt(0.5), np.sqrt(0.5), 0], atol=1e-6)


def test_accuracy_by_hand() -> None:
    vectors = np.array(
        [[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [np.nan] * 3, [1, 0, 0]], dtype=np.float32
    )
    scores = zero_shot(vectors, ["cat", "dog", "cat", "cat", None], _prompted(), "en")
    assert scores is not None
    assert scores["samples"] == 3
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["per_class"] == {"cat": 0.5, "dog": 1.0}
    assert scores["confusion"]["matrix"] == [[1, 1], [0, 1]]
    # with the first prompt alone, (0.6, 0.8) is nearer to cat
    assert scores["bare"] == 1


def test_bare_needs_prompts_whose_order_means_something() -> None:
    vectors = np.array([[1, 0, 0]], dtype=np.float32)
    scores = zero_shot(vectors, ["cat"], _prompted(FROM_ROWS), "en")
    assert scores is not None
    assert "bare" not in scores


def test_ties_are_mistakes() -> None:
    prompts = Prompts("file", {"a": {"en": ["1"]}, "b": {"en": ["2"]}})
    same = np.array([[1.0, 0.0]], dtype=np.float32)
    prompted = PromptVectors(prompts, {("a", "en"): same, ("b", "en"): same})
    scores = zero_shot(np.repeat(same, 4, axis=0), ["a", "b", "a", "b"], prompted, "en")
    assert scores is not None
    assert scores["accuracy"] == 0


def test_no_row_that_takes_part_is_none() -> None:
    vectors = np.array([[1, 0, 0]], dtype=np.float32)
    assert zero_shot(vectors, ["bird"], _prompted(), "en") is None
    assert zero_shot(vectors, [None], _prompted(), "en") is None


def test_prompts_are_embedded_in_their_places(oracle: Any) -> None:
    texts = {"r": {"en": ["red", "a red square"], "zh": ["红色"]}, "b": {"en": ["blue"]}}
    prompted = embed_prompts(oracle, Prompts("file", texts))
    assert {key: len(v) for key, v in prompted.vectors.items()} == {
        ("r", "en"): 2,
        ("r", "zh"): 1,
        ("b", "en"): 1,
    }
    assert prompted.vectors["b", "en"].argmax() == 2  # blue is the third colour


def test_a_prompt_that_cannot_be_used_is_named(oracle: Any) -> None:
    with pytest.raises(DataError, match=r"^p.json: 'red', 'en': text is empty$"):
        embed_prompts(oracle, Prompts("p.json", {"red": {"en": [" "]}}))
    oracle.answer = lambda modality, colour: int(modality is Modality.TEXT)
    assert embed_prompts(oracle, Prompts("p.json", {})).vectors == {}
