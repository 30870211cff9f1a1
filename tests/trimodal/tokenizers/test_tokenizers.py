import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trimodal.config import SpeechInputConfig
from trimodal.errors import ConfigError, StorageError
from trimodal.testing import assert_close
from trimodal.tokenizers import (
    SpeechTokenizer,
    Tokenizers,
    VisionTokenizer,
    Vocoder,
    VocoderConfig,
    tokenizers,
)


@pytest.fixture
def full(vision: VisionTokenizer, speech: SpeechTokenizer, vocoder: Vocoder) -> Tokenizers:
    return Tokenizers(vision=vision, speech=speech, vocoder=vocoder)


def test_pictures_of_many_sizes_do_not_depend_on_each_other(
    full: Tokenizers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizers, "MOST_NUMBERS", 3 * 8 * 8 * 2)
    pixels = [torch.rand(3, *s) * 2 - 1 for s in [(8, 8), (4, 12), (8, 8), (8, 8), (4, 4)]]
    codes = full.image_codes(pixels)
    assert [tuple(c.shape) for c in codes] == [(2, 2), (1, 3), (2, 2), (2, 2), (1, 1)]
    pictures = full.pictures(codes)
    for one, code, picture in zip(pixels, codes, pictures, strict=True):
        assert torch.equal(full.image_codes([one])[0], code)
        assert picture.shape == (*one.shape[1:], 3)
        assert picture.dtype == np.uint8
        alone = full.pictures([code])[0].astype(int)
        assert np.abs(alone - picture).max() <= 1  # rounding to whole levels


def test_utterances_of_many_lengths_do_not_depend_on_each_other(full: Tokenizers) -> None:
    utterances = [torch.randn(n, 16) for n in (13, 40, 16, 3, 40)]
    codes = full.speech_codes(utterances)
    assert [len(c) for c in codes] == [4, 10, 4, 1, 10]
    frames, waveforms = full.frames(codes), full.waveforms(codes)
    for one, code, frame, waveform in zip(utterances, codes, frames, waveforms, strict=True):
        assert torch.equal(full.speech_codes([one])[0], code)
        assert frame.shape == (4 * len(code), 16)
        assert_close(full.frames([code])[0], frame, "packed-vs-alone-fp32")
        assert waveform.shape == (len(frame) * 160,)
        assert waveform.dtype == np.float32
        assert np.abs(waveform).max() <= 1
        assert_close(full.waveforms([code])[0], waveform, "packed-vs-alone-fp32")


def test_without_a_vocoder_speech_is_still_heard(speech: SpeechTokenizer, full: Tokenizers) -> None:
    alone = Tokenizers(speech=speech)
    codes = [torch.tensor([5, 7, 9]), torch.tensor([1])]
    sounds = alone.waveforms(codes)
    assert [len(s) for s in sounds] == [3 * 4 * 160, 4 * 160]
    assert all(s.any() for s in sounds)
    assert not np.allclose(sounds[0], full.waveforms(codes)[0])


def test_nothing_in_nothing_out(full: Tokenizers) -> None:
    assert full.image_codes([]) == full.speech_codes([]) == full.waveforms([]) == []


def test_a_bundle_comes_back_from_its_folders(tmp_path: Path, full: Tokenizers) -> None:
    full.save(tmp_path / "new")
    names = ["speech_tokenizer", "vision_tokenizer", "vocoder"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    again = Tokenizers.load(tmp_path / "new")
    assert again.fingerprints() == full.fingerprints()
    assert sorted(full.fingerprints()) == names
    shutil.rmtree(tmp_path / "new" / "vocoder")
    assert sorted(Tokenizers.load(tmp_path / "new").fingerprints()) == names[:2]


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no tokenizers: none of vision_tokenizer"):
        Tokenizers.load(tmp_path)
    (tmp_path / "vocoder").mkdir()
    with pytest.raises(StorageError, match="vocoder is not a vocoder"):
        Tokenizers.load(tmp_path)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path, speech: SpeechTokenizer) -> None:
    config = VocoderConfig(width=8, depth=1, speech_input=SpeechInputConfig(num_mels=20))
    other = Vocoder(config)
    with pytest.raises(ConfigError, match="the vocoder reads other frames"):
        Tokenizers(speech=speech, vocoder=other)
    speech.save(tmp_path / "speech_tokenizer")
    other.save(tmp_path / "vocoder")
    with pytest.raises(StorageError, match="the vocoder reads other frames"):
        Tokenizers.load(tmp_path)


def test_a_part_that_is_missing_is_named(vision: VisionTokenizer) -> None:
    only = Tokenizers(vision=vision)
    with pytest.raises(ConfigError, match="there is no speech tokenizer"):
        only.speech_codes([torch.zeros(4, 16)])
    with pytest.raises(ConfigError, match="there is no vision tokenizer"):
        dataclasses.replace(only, vision=None).pictures([torch.zeros(1, 1, dtype=torch.int64)])


def test_the_beginning_of_an_utterance_is_heard_before_its_end_is_known(full: Tokenizers) -> None:
    codes = torch.randint(60, (30,))
    (whole,) = full.waveforms([codes])
    settled = [full.settled_samples(count) for count in range(30)]
    assert settled == sorted(settled)
    assert settled[0] == 0 < settled[-1] < len(whole)
    for count, samples in enumerate(settled):
        guessed = torch.cat([codes[:count], torch.randint(60, (30 - count,))])
        assert np.array_equal(full.waveforms([guessed])[0][:samples], whole[:samples])
        if samples:
            (alone,) = full.waveforms([codes[:count]])
            assert_close(alone[:samples], whole[:samples], "packed-vs-alone-fp32")
    assert dataclasses.replace(full, vocoder=None).settled_samples(1000) == 0
