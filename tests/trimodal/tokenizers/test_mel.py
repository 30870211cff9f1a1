import numpy as np
import pytest
import torch

from trimodal.config import SpeechInputConfig
from trimodal.processors import SpeechProcessor
from trimodal.testing import assert_close
from trimodal.tokenizers import griffin_lim
from trimodal.tokenizers.mel import mel_spectrogram, with_loudness

CONFIG = SpeechInputConfig(num_mels=64)


def _tones(rate: int = 16_000) -> torch.Tensor:
    at = torch.arange(rate // 2) / rate
    rising = torch.sin(2 * np.pi * (300 * at + 400 * at**2)) * torch.hann_window(len(at))
    return rising + 0.01 * torch.randn(len(at))


def test_frames_stand_on_multiples_of_the_hop() -> None:
    mel = mel_spectrogram(CONFIG)
    click = torch.zeros(1600)
    click[3 * 160] = 1.0
    power = mel(click).sum(0)
    assert power.shape == (11,)
    assert int(power.argmax()) == 3


def test_loudness_is_set_and_silence_stays() -> None:
    waveform = with_loudness(torch.stack([torch.randn(500), torch.zeros(500)]), 0.2)
    assert_close(waveform.square().mean(-1).sqrt(), [0.2, 0.0], "fp32")


def test_griffin_lim_gives_back_the_frames() -> None:
    processor = SpeechProcessor(CONFIG)
    waveform = _tones()
    logs = processor.log_mel(waveform)
    frames = processor.frames(waveform)
    again = griffin_lim(frames[None], CONFIG, float(logs.mean()), float(logs.std()))[0]
    assert again.shape == (len(frames) * 160,)
    assert_close(again.square().mean().sqrt(), 0.1, "fp32")
    found = processor.frames(again)[: len(frames)]
    correlation = torch.corrcoef(torch.stack([found.flatten(), frames.flatten()]))[0, 1]
    assert correlation > 0.9


def test_griffin_lim_is_the_same_every_time_and_in_every_batch() -> None:
    frames = torch.randn(3, 12, 64)
    torch.manual_seed(5)
    together = griffin_lim(frames, CONFIG, -7.0, 2.0)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the draws of others moved"
    for i in range(3):
        alone = griffin_lim(frames[i : i + 1], CONFIG, -7.0, 2.0)
        assert_close(together[i], alone[0], "exact")


@pytest.mark.parametrize("num_mels", [16, 128])
def test_griffin_lim_takes_empty_bands(num_mels: int) -> None:
    config = SpeechInputConfig(num_mels=num_mels)
    assert griffin_lim(torch.randn(1, 6, num_mels), config, -7.0, 2.0).isfinite().all()
