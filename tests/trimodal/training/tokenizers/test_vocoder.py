import dataclasses
from pathlib import Path

import pytest
import torch

from trimodal.data import read_manifest
from trimodal.errors import ConfigError
from trimodal.testing import assert_close
from trimodal.tokenizers import SpeechTokenizer, SpeechTokenizerConfig
from trimodal.training.tokenizers.config import SpeechTokenizerTraining, VocoderTraining
from trimodal.training.tokenizers.vocoder import VocoderTask


@pytest.fixture
def tokenizer(tmp_path: Path, speech_config: SpeechTokenizerTraining) -> str:
    """A folder of a tokenizer whose weights are random."""
    folder = tmp_path / "speech_tokenizer"
    SpeechTokenizer(speech_config.tokenizer).save(folder)
    return str(folder)


def test_crops_of_frames_and_samples_belong_together(
    manifest: Path, vocoder_config: VocoderTraining
) -> None:
    task = VocoderTask(vocoder_config, read_manifest(manifest))
    frames, samples = task.files[0]
    assert len(samples) == len(frames) * 160
    assert samples.square().mean().sqrt() == pytest.approx(0.1, rel=0.05)
    found = set()
    for step in range(8):
        part, piece, _ = task.crop(step, 0)
        assert len(part) == 16
        start = next(s for s in range(len(frames)) if torch.equal(frames[s : s + 16], part))
        assert_close(piece, samples[start * 160 : (start + 16) * 160], "exact")
        found.add(start)
    assert len(found) > 1


def test_samples_are_those_that_the_frames_describe(
    manifest: Path, vocoder_config: VocoderTraining
) -> None:
    """A sound moved by a frame fits its frames less well: the two are aligned."""
    task = VocoderTask(vocoder_config, read_manifest(manifest))
    frames, samples = task.files[0]
    again = task.processor.frames(samples)[: len(frames)]
    moved = task.processor.frames(torch.roll(samples, 160))[: len(frames)]
    near = (again - frames).abs()[1:-2].mean()
    assert near < 0.05
    assert near < (moved - frames).abs()[1:-2].mean() / 2


def test_the_chosen_frames_are_what_the_tokenizer_gives_back(
    manifest: Path, vocoder_config: VocoderTraining, tokenizer: str
) -> None:
    config = dataclasses.replace(vocoder_config, tokenizer=tokenizer, tokenized=0.5)
    task = VocoderTask(config, read_manifest(manifest))
    assert len({task.crop(step, 0)[2] for step in range(20)}) == 2
    frames, lengths = torch.randn(3, 14, 16), torch.tensor([14, 14, 7])
    given = task._tokenized(frames, lengths, torch.tensor([False, True, True]))
    assert torch.equal(given[0], frames[0])
    speech = task.tokenizer
    assert speech is not None
    for i, length in ((1, 14), (2, 7)):
        padded = torch.nn.functional.pad(frames[i, :length], (0, 0, 0, -length % 4))[None]
        alone = speech.decode(speech.encode(padded))[0, :length]
        assert_close(given[i, :length], alone, "packed-vs-alone-fp32")
        assert not given[i, length:].any()


def test_without_a_tokenizer_frames_stay_as_they_are(
    manifest: Path, vocoder_config: VocoderTraining
) -> None:
    task = VocoderTask(vocoder_config, read_manifest(manifest))
    assert not any(task.crop(step, 0)[2] for step in range(20))
    [outcome] = task.outcomes(0)
    assert outcome.fake.shape == outcome.real.shape
    assert outcome.codes is None
    assert outcome.loss.requires_grad


def test_a_tokenizer_of_other_frames_is_refused(
    tmp_path: Path, manifest: Path, vocoder_config: VocoderTraining
) -> None:
    SpeechTokenizer(SpeechTokenizerConfig(width=8, depth=0)).save(tmp_path / "other")
    config = dataclasses.replace(vocoder_config, tokenizer=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"vocoder\.speech_input: .* num_mels is 80, is 16"):
        VocoderTask(config, read_manifest(manifest))
