"""Text: pieces of the unified vocabulary and back, and the training of a tokenizer."""

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from trimodal.batch import Modality
from trimodal.config import VocabularyConfig
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.processors.text import WORD_END, TextProcessor, train_tokenizer
from trimodal.testing import tiny_tokenizer
from trimodal.vocabulary import Vocabulary

VOCABULARY = Vocabulary(VocabularyConfig(text=512, vision=16, speech=16))
PROCESSOR = TextProcessor(tiny_tokenizer(), VOCABULARY, max_tokens=48)


@pytest.mark.parametrize(
    "text",
    [
        "a red square",
        "红色的方块",
        "the number 3.14",
        "naïve café",
        "смешанный 混合 text",
        "🙂",
        "日本語",
    ],
)
def test_every_script_comes_back(text: str) -> None:
    medium = PROCESSOR.medium(text)
    assert medium.modality is Modality.TEXT
    assert medium.features.dtype is torch.int64
    assert medium.num_tokens == len(medium.features)
    assert PROCESSOR.decode(medium.features.tolist()) == text


def test_ids_lie_in_the_text_range() -> None:
    ids = PROCESSOR.medium("a red square, 绿色").features
    assert int(ids.min()) >= VOCABULARY.text.start
    assert int(ids.max()) < VOCABULARY.text.start + VOCABULARY.text.size


def test_known_words_take_fewer_pieces_than_unknown_ones() -> None:
    assert PROCESSOR.medium("square").num_tokens < PROCESSOR.medium("zquqrx").num_tokens


def test_text_is_normalised() -> None:
    assert torch.equal(PROCESSOR.medium("ａ  red\n").features, PROCESSOR.medium("a red").features)


def test_special_tokens_cannot_be_typed() -> None:
    ids = PROCESSOR.medium("<s> <unk> <mask>").features
    assert PROCESSOR.decode(ids.tolist()) == "<s> <unk> <mask>"
    assert int(ids.min()) > VOCABULARY.text.start  # the first piece is the unknown one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text is empty"),
        (" \n\t\u3000", "text is empty"),
        ("\u200b", "text holds no visible character"),
        ("\ufeff\x01", "text holds no visible character"),
        ("red \ud800", "text is not valid Unicode: it holds a lone surrogate"),
        ("red " * 60, "text has 60 tokens, the limit is 48"),
        ("x" * 100_000, "text has 100001 tokens, the limit is 48"),
        (7, "text must be a string, got int"),
        (b"seven", "text must be a string, got bytes"),
    ],
    ids=[
        "empty",
        "blank",
        "zero-width",
        "control",
        "surrogate",
        "long",
        "very-long",
        "int",
        "bytes",
    ],
)
def test_what_is_no_text_is_named(text: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        PROCESSOR.medium(text)
    assert str(caught.value).startswith(message)


def test_the_longest_text_is_taken() -> None:
    assert PROCESSOR.medium("square " * 24).num_tokens <= 48


def test_either_end_of_a_text_that_is_too_long_may_remain() -> None:
    longer = TextProcessor(PROCESSOR.proto, VOCABULARY, max_tokens=200)
    text = "a red square is red " * 8
    whole = longer.medium(text).features.tolist()
    assert len(whole) > 48
    assert PROCESSOR.medium(text, "start").features.tolist() == whole[:48]
    assert PROCESSOR.medium(text, "end").features.tolist() == whole[-48:]
    for keep in (None, "start", "end"):
        assert PROCESSOR.medium("red", keep).features.equal(PROCESSOR.medium("red").features)


def test_a_text_may_be_given_as_its_pieces() -> None:
    medium = PROCESSOR.medium("a red square")
    pieces = (medium.features - VOCABULARY.text.start).tolist()
    again = PROCESSOR.of_pieces(pieces)
    assert again.features.equal(medium.features)
    assert (again.num_tokens, again.grid) == (medium.num_tokens, medium.grid)


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([], "empty_input"),
        ([1] * 49, "context_length_exceeded"),
        ([-1], "invalid_token"),
        ([PROCESSOR.num_pieces], "invalid_token"),
    ],
)
def test_other_pieces_are_refused(pieces: list[int], code: str) -> None:
    with pytest.raises(DataError) as caught:
        PROCESSOR.of_pieces(pieces)
    assert caught.value.code == code


def test_a_tokenizer_is_trained_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "text.model"
    corpus = [f"the {word} of the day is {n}" for n in range(20) for word in ("word", "song", "词")]
    size = train_tokenizer([*corpus, "", "  "], path, vocab_size=320)
    assert 256 < size <= 320
    processor = TextProcessor.from_file(path, VOCABULARY, max_tokens=20)
    assert processor.decode(processor.medium("the song of the day").features.tolist()) == (
        "the song of the day"
    )


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    corpus = ["one red square", "two green squares", "三个蓝色的方块"] * 5
    for name in ("a", "b"):
        train_tokenizer(corpus, tmp_path / name, vocab_size=300)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pieces_stay_within_chinese_words(tmp_path: Path) -> None:
    """A corpus of one phrase becomes pieces of the phrase; within words, it does not."""
    corpus = [f"一个{c}的{s}" for c in ("黄色", "红色") for s in ("圆形", "星形")] * 50
    pieces: dict[bool, list[str]] = {}
    for within in (False, True):
        path = tmp_path / str(within)
        train_tokenizer(corpus, path, vocab_size=300, within_words=within)
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pieces[within] = [model.id_to_piece(i) for i in range(len(model)) if not model.is_byte(i)]
        assert model.decode(model.encode("一个红色的圆形")) == "一个红色的圆形"
    assert any("色的" in piece for piece in pieces[False])
    assert not any("色的" in piece or WORD_END in piece for piece in pieces[True])
    longer = {piece for piece in pieces[True] if len(piece) > 1 and piece.isalpha()}
    assert longer
    assert longer <= {"黄色", "红色", "圆形", "星形"}


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        train_tokenizer(["", "  "], tmp_path / "text.model", vocab_size=300)
    assert not (tmp_path / "text.model").exists()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "vocab_size: 0 is not positive"),
        (100, r"vocab_size: 100 is too small, these texts need at least 2\d\d$"),
        (2**31, r"vocab_size: 2147483648 is above 1000000$"),
    ],
)
def test_a_size_that_cannot_be_trained_is_refused(tmp_path: Path, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_tokenizer(["one red square"], tmp_path / "text.model", size)


@pytest.mark.parametrize("offset", [-1, 300])
def test_an_id_without_a_piece_is_refused(offset: int) -> None:
    id_ = VOCABULARY.text.start + offset
    with pytest.raises(DataError, match=f"id {id_} is not that of a text piece"):
        PROCESSOR.decode([VOCABULARY.text.start, id_])


def test_a_missing_tokenizer_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="train one with `trimodal tokenizer train text`"):
        TextProcessor.from_file(tmp_path / "none.model", VOCABULARY, max_tokens=8)


def test_a_file_that_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(StorageError, match="not a SentencePiece model"):
        TextProcessor(b"hello", VOCABULARY, max_tokens=8)


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    small = Vocabulary(VocabularyConfig(text=100, vision=16, speech=16))
    with pytest.raises(ConfigError, match=r"text: 100 ids are too few for the \d{3} pieces"):
        TextProcessor(tiny_tokenizer(), small, max_tokens=8)
