"""Pictures and speech as codes of the unified vocabulary, and back."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Medium, Modality, Target
from trimodal.config import ModelConfig, SpeechInputConfig, VisionInputConfig, VocabularyConfig
from trimodal.errors import ConfigError
from trimodal.processors.codes import CodeProcessor
from trimodal.processors.speech import SpeechProcessor
from trimodal.processors.vision import VisionProcessor
from trimodal.testing import tiny_model_config, tiny_tokenizers
from trimodal.tokenizers import (
    SpeechTokenizer,
    SpeechTokenizerConfig,
    Tokenizers,
    VisionTokenizer,
    VisionTokenizerConfig,
)
from trimodal.vocabulary import Special, prompt

V, S = Modality.VISION, Modality.SPEECH
CONFIG = replace(
    tiny_model_config(),
    vision_input=VisionInputConfig(patch_size=8),
    vision_codes=4,
    speech_codes=2,
    picture_size=(16, 16),
)
"""A patch covers 2 x 2 codes, a token of speech 2 codes."""


def tokenizers(speech_strides: tuple[int, ...] = (2,), levels: tuple[int, ...] = (4, 4)) -> Any:
    small: dict[str, Any] = {"levels": levels, "width": 8, "depth": 1}
    vision = VisionTokenizer(VisionTokenizerConfig(strides=(2, 2), **small))
    speech = SpeechTokenizer(
        SpeechTokenizerConfig(strides=speech_strides, speech_input=CONFIG.speech_input, **small)
    )
    for parameter in [*vision.parameters(), *speech.parameters()]:
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return Tokenizers(vision=vision.eval(), speech=speech.eval())


@pytest.fixture
def codes() -> CodeProcessor:
    return CodeProcessor(tokenizers(), CONFIG)


def pictures(*sizes: tuple[int, int]) -> list[Medium]:
    processor = VisionProcessor(CONFIG.vision_input)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return [processor.medium(processor.decode(array)) for array in arrays]


def utterances(*seconds: float) -> list[Medium]:
    processor = SpeechProcessor(CONFIG.speech_input)
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(int(16_000 * s)).astype(np.float32) for s in seconds]
    return [processor.medium(processor.frames(processor.decode((w, 16_000)))) for w in waves]


def test_codes_of_a_patch_are_those_inside_it(codes: CodeProcessor) -> None:
    """Whole pictures of 3 x 5 patches, whose 6 x 10 codes are laid out row by row."""
    media = pictures((24, 40), (8, 8), (16, 24))
    for medium, plain in zip(codes.tokenized(media), media, strict=True):
        rows, columns = plain.grid
        target = codes.target(plain, ())
        assert target.grid == (2 * rows, 2 * columns)
        grid = target.ids.view(target.grid)
        assert medium.codes is not None
        assert medium.codes.shape == (plain.num_tokens, 4)
        for token in range(plain.num_tokens):
            row, column = divmod(token, columns)
            inside = grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert medium.codes[token].tolist() == inside.flatten().tolist()
        assert torch.equal(medium.features, plain.features)


def test_codes_of_speech_follow_in_time(codes: CodeProcessor) -> None:
    media = utterances(0.3, 0.5, 0.3)
    for medium, plain in zip(codes.tokenized(media), media, strict=True):
        target = codes.target(plain, prompt(S, "en"))
        assert target.grid == (2 * plain.num_tokens, 1)
        assert target.prompt == prompt(S, "en")
        assert medium.codes is not None
        assert torch.equal(medium.codes, target.ids.view(plain.num_tokens, 2))
    assert codes.tokenized([]) == []


def test_ids_lie_in_their_ranges(codes: CodeProcessor) -> None:
    for media, modality in ((pictures((64, 64)), V), (utterances(2.0), S)):
        ids = codes.target(media[0], ()).ids
        start, size = codes.vocabulary.range_of(modality)
        assert ids.dtype == torch.int64
        assert ((ids >= start) & (ids < start + size)).all()
        assert len(ids.unique()) > 2
    assert codes.vocabulary.vision.start != codes.vocabulary.speech.start


def test_a_code_tells_of_its_own_place(codes: CodeProcessor) -> None:
    """Another corner of the picture changes codes there and none at the other end."""
    (plain,) = pictures((64, 64))
    changed = replace(plain, features=plain.features.clone())
    changed.features[-1] = -changed.features[-1]
    before, after = (codes.target(m, ()).ids.view(16, 16) for m in (plain, changed))
    where = (before != after).nonzero()
    assert len(where)
    assert int(where.min()) >= 8


def test_what_is_decoded_has_the_size_of_what_was_encoded(codes: CodeProcessor) -> None:
    media = pictures((24, 40), (8, 8), (24, 40))
    made = codes.pictures([codes.target(medium, ()) for medium in media])
    assert [picture.shape for picture in made] == [(24, 40, 3), (8, 8, 3), (24, 40, 3)]
    assert {picture.dtype for picture in made} == {np.dtype(np.uint8)}
    media = utterances(0.3, 0.5)
    made = codes.waveforms([codes.target(medium, ()) for medium in media])
    hop = 160
    for medium, samples in zip(media, made, strict=True):
        assert samples.dtype == np.float32
        assert abs(len(samples) - len(medium.features) * hop) <= 400


def test_codes_are_read_row_by_row(codes: CodeProcessor) -> None:
    (medium,) = pictures((16, 24))
    target = codes.target(medium, ())
    local = target.ids.view(4, 6) - codes.vocabulary.vision.start
    (expected,) = codes.tokenizers.pictures([local])
    assert np.array_equal(codes.pictures([target])[0], expected)
    turned = Target(V, target.ids, (6, 4), ())
    assert codes.pictures([turned])[0].shape == (24, 16, 3)


def test_an_empty_target_is_all_masked(codes: CodeProcessor) -> None:
    target = codes.empty_target(V, (2, 3), prompt(V))
    assert target.ids.tolist() == [Special.MASK_VISION] * 6
    assert target.ids.dtype == torch.int64
    assert target.grid == (2, 3)
    assert codes.empty_target(S, (4, 1), ()).ids.tolist() == [Special.MASK_SPEECH] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision_input": VisionInputConfig(patch_size=6)},
            "model.vision_input.patch_size: 6 is not a multiple of the 4 pixels that a code",
        ),
        ({"vision_codes": 1}, "model.vision_codes: must be 4, so many codes of the vision tok"),
        ({"speech_codes": 1}, "model.speech_codes: must be 2, so many codes of the speech tok"),
        (
            {"vocabulary": VocabularyConfig(text=512, vision=15, speech=16)},
            "model.vocabulary.vision: 15 ids are too few for the 16 codes of the vision tokenizer",
        ),
        (
            {"vocabulary": VocabularyConfig(text=512, vision=16, speech=15)},
            "model.vocabulary.speech: 15 ids are too few for the 16 codes of the speech tokenizer",
        ),
        (
            {"speech_input": SpeechInputConfig(num_mels=16, max_seconds=5.0)},
            "model.speech_input: the speech tokenizer reads other frames",
        ),
    ],
    ids=str,
)
def test_a_tokenizer_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    config: ModelConfig = replace(CONFIG, **changes)
    with pytest.raises(ConfigError) as caught:
        CodeProcessor(tokenizers(), config)
    assert str(caught.value).startswith(message)


def test_codes_longer_than_a_token_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 is not a multiple of the 8 frames that a code"):
        CodeProcessor(tokenizers(speech_strides=(2, 4)), CONFIG)


def test_what_is_not_there_is_asked_in_vain() -> None:
    codes = CodeProcessor(Tokenizers(vision=tiny_tokenizers().vision), tiny_model_config())
    with pytest.raises(ConfigError, match="there is no speech tokenizer"):
        codes.target(utterances(0.2)[0], ())
