"""Speech as frames and tokens; see `test_recording.py` for what is decoded."""

import numpy as np
import pytest
import torch

from trimodal.batch import Modality
from trimodal.config import SpeechInputConfig
from trimodal.processors.speech import SpeechProcessor

PROCESSOR = SpeechProcessor(SpeechInputConfig(num_mels=16, max_seconds=4.0))


def _tone(pitch: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(16_000) / 16_000)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 100, 400, 16_000, 16_001])
def test_frames_have_mean_zero_and_one_scale(samples: int) -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, samples)).float()
    frames = PROCESSOR.frames(noise)
    assert frames.shape[1] == 16
    assert abs(float(frames.mean())) < 1e-5
    assert float(frames.std()) == pytest.approx(1, abs=1e-3)
    if samples >= 16_000:
        assert len(frames) == 101  # one each ten milliseconds, both ends included


def test_loudness_does_not_matter() -> None:
    waveform = torch.from_numpy(
        _tone() + 0.01 * np.random.default_rng(0).normal(size=16_000)
    ).float()
    difference = PROCESSOR.frames(waveform) - PROCESSOR.frames(waveform * 0.1)
    assert float(difference.abs().max()) < 1e-3


def test_silence_is_finite() -> None:
    assert bool(PROCESSOR.frames(torch.zeros(16_000)).isfinite().all())


def test_a_higher_tone_lies_in_a_higher_band() -> None:
    bands = [
        int(PROCESSOR.frames(torch.from_numpy(_tone(pitch=pitch))).mean(0).argmax())
        for pitch in (150, 400, 1000, 2500, 6000)
    ]
    assert bands == sorted(set(bands))


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (4, 1), (5, 2), (101, 26)])
def test_frames_are_padded_to_whole_tokens(frames: int, tokens: int) -> None:
    medium = PROCESSOR.medium(torch.ones(frames, 16))
    assert medium.modality is Modality.SPEECH
    assert medium.num_tokens == tokens
    assert medium.grid == (tokens, 1)
    assert medium.features.shape == (4 * tokens, 16)
    assert float(medium.features.sum()) == frames * 16
