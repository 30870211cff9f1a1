"""Recordings as waveforms of the model's rate, through the processor that users call."""

import io
from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch

from trimodal.config import SpeechInputConfig
from trimodal.processors import recording
from trimodal.processors.speech import SpeechProcessor
from trimodal.testing import assert_close

PROCESSOR = SpeechProcessor(SpeechInputConfig(num_mels=16, max_seconds=4.0))


def _tone(rate: int = 16_000, seconds: float = 1.0, pitch: float = 440.0) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * times)).astype(np.float32)


def _encode(
    samples: np.ndarray, rate: int = 16_000, container: str = "WAV", subtype: str | None = None
) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=container, subtype=subtype)
    return stream.getvalue()


def _pitch(waveform: torch.Tensor) -> float:
    return int(torch.fft.rfft(waveform).abs().argmax()) * 16_000 / len(waveform)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_becomes_sixteen_kilohertz(rate: int, container: str) -> None:
    waveform = PROCESSOR.decode(_encode(_tone(rate), rate, container))
    assert len(waveform) == pytest.approx(16_000, abs=1)
    assert _pitch(waveform) == pytest.approx(440, abs=2)
    assert waveform.abs()[1000:-1000].max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("rate", [1_001, 7_999, 15_990, 22_051, 47_999, 191_661, 191_999])
def test_an_odd_rate_costs_no_more_than_another(rate: int) -> None:
    """A header must not decide how large the resampling filter gets: 47,999 Hz took gigabytes."""
    waveform = PROCESSOR.decode((_tone(rate, 0.5), rate))
    assert len(waveform) == pytest.approx(8_000, rel=0.002)
    assert _pitch(waveform) == pytest.approx(440, abs=2)
    filters = [buffer.nbytes for buffer in recording._resampler(rate, 16_000).buffers()]
    slots = recording._resampler.cache_info().maxsize
    assert slots
    assert sum(filters) < (64 << 20) / slots


@pytest.mark.parametrize(
    "rates", [range(1_000, 192_001, 7), (8_000, 11_025, 12_000, 22_050, 44_100, 48_000, 96_000)]
)
def test_common_rates_are_exact_and_others_nearly(
    rates: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resample = Mock()
    monkeypatch.setattr(recording.torchaudio.transforms, "Resample", resample)
    for rate in rates:
        recording._resampler.__wrapped__(rate, 16_000)
        source, target = resample.call_args.args
        within = 0.002 if isinstance(rates, range) else 0
        assert source / target == pytest.approx(rate / 16_000, rel=within, abs=0)


def test_stereo_is_mixed() -> None:
    left, right = _tone(pitch=300), _tone(pitch=900)
    waveform = PROCESSOR.decode(_encode(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert_close(waveform, (left + right) / 2, "fp32")
